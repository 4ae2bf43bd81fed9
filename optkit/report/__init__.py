"""Manifests → rows → HTML, Markdown and JSON."""
