"""What runs inside a machine: the init of its initramfs, and the agent."""
