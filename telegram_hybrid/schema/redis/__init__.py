"""What we keep in Redis, as other programs may read it: key names, values and Lua scripts."""
