"""Text generation with a language model: prompts, sampling, tuning, and a cache."""
