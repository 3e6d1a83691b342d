"""Network building blocks: everything carries a leading axis of networks, agents or ensemble members."""
