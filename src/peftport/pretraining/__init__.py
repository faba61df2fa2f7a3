"""Makes hosts from text: from scratch, continued from another, or taught by one."""
