"""Planning: which targets, in which waves, when, and the frozen document that says so."""
