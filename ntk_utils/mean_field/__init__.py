"""Two-layer networks with mean-field scaling, f(x) = (1/N) Σ_i σ(x; θ_i), and their limits."""
