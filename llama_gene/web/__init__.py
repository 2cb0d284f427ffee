"""What people look at: the figures of the reports."""
