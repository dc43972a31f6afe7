"""What tests share: daemons to start, clients that count, faults to make, apps to serve."""
