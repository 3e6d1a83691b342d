"""Network building blocks. Their tensors have a leading axis of networks, agents or ensemble members."""
