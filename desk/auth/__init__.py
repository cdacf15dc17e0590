"""Sign-in: passwords, an OpenID provider, and which methods are safe where."""
