"""servd: one file describes your services, and the daemon keeps what runs equal to it."""
