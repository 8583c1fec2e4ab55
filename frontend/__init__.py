"""Importers of foreign networks, the zoo of shapes, and the data set of the demo."""
