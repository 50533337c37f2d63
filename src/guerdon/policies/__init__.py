"""Things that act: flow-matching image models, prompt rewriters, language policies."""
