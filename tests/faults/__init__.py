"""What can happen to the daemon and around it, under readers that check every byte they read."""
