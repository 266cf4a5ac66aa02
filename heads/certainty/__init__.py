"""How sure a head is: temperatures, prediction sets and "none of these"; no choice of a head."""
