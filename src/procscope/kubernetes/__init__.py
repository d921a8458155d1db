"""Has Kubernetes mount the files into pods by itself: admission, its server and certificates.

`admission`, and the modules that it is made of, are pure: raw JSON in, raw JSON out. Everything
that talks to an API server or to a socket is around them. This package needs the extra
`procscope[kubernetes]`, all but its pure part.
"""
