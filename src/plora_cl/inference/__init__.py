"""What a run learned, loaded from its folder to predict with."""
