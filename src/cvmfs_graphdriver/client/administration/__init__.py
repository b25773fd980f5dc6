"""What a running client tells administrators, and does when they ask: talk, status, metrics, checkup."""
