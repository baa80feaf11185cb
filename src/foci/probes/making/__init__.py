"""Makes probes from a corpus by rule, in English: `facts` finds what to ask for, `wording` asks, `make` chooses."""
