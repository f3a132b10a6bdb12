"""What a run needs: memory, placement and time, before anything starts."""
