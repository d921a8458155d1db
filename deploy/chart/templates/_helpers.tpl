{{- define "procscope.name" -}}
{{- default "procscope" .Values.fullnameOverride | trunc 54 | trimSuffix "-" -}}
{{- end }}

{{- define "procscope.keeper" -}}
{{ include "procscope.name" . }}-keeper
{{- end }}

{{- define "procscope.webhook" -}}
{{ include "procscope.name" . }}-webhook
{{- end }}

{{/* The Secret that the webhook's certificate is in. */}}
{{- define "procscope.tlsSecret" -}}
{{- if eq .Values.webhook.certificates.mode "given" -}}
{{- required "webhook.certificates.given.secretName names no Secret: give the one with tls.crt and tls.key" .Values.webhook.certificates.given.secretName -}}
{{- else -}}
{{ include "procscope.webhook" . }}-tls
{{- end -}}
{{- end }}

{{- define "procscope.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* The label that admission knows the chart's own pods by. */}}
{{- define "procscope.ownLabel" -}}
app.kubernetes.io/name: procscope
{{- end }}

{{/* Labels of an object: {root, component}. */}}
{{- define "procscope.labels" -}}
{{ include "procscope.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "procscope.selector" -}}
{{ include "procscope.ownLabel" .root }}
app.kubernetes.io/instance: {{ include "procscope.name" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of a pod: {root, component, more}. */}}
{{- define "procscope.podLabels" -}}
{{ include "procscope.selector" . }}
{{- range $key, $value := merge (dict) .more .root.Values.commonLabels }}
{{ $key }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* What a pod of a node has, whether agent or keeper. */}}
{{- define "procscope.nodePod" -}}
serviceAccountName: {{ include "procscope.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
# Readers are known by their process ids on the node.
hostPID: true
{{- with .Values.agent.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.agent.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.agent.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.agent.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
# Without an agent or a keeper: files are taken away from all containers of the node first.
terminationGracePeriodSeconds: 90
{{- end }}

{{- define "procscope.nodeSecurityContext" -}}
securityContext:
  # Mounts that reach the node and, from there, other pods.
  privileged: true
  runAsUser: 0
  runAsGroup: 0
  readOnlyRootFilesystem: true
{{- end }}

{{/* The hostPath of the mount has no type: a dead mount below it must not keep the pod from starting. */}}
{{- define "procscope.nodeVolumes" -}}
- name: lib
  hostPath:
    path: {{ dir .Values.mountpoint }}
- name: run
  hostPath:
    path: {{ .Values.runDirectory }}
    type: DirectoryOrCreate
{{- end }}

{{- define "procscope.nodeVolumeMounts" -}}
- name: lib
  mountPath: {{ dir .Values.mountpoint }}
  mountPropagation: Bidirectional
- name: run
  mountPath: {{ .Values.runDirectory }}
{{- end }}
