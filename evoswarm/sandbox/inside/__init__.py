"""What runs inside of a sandbox. Needs nothing but the standard library; travels there as text."""
