"""What people are asked, so that each decision teaches most."""
