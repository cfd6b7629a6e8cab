"""Reports: what runs left in their folders, as one page, figures and LaTeX tables."""
