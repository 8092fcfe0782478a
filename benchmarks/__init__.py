"""What things cost, measured side by side in one run. Nothing here passes or fails."""
