"""Importers of foreign networks, the float network in torch, the zoo of shapes, and the data set of the demo."""
