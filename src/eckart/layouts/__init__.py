"""How the numbers of a layer hang together: heads, experts, patches."""
