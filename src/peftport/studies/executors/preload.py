"""What a fork server imports first, so that it is soon done with importing the rest."""

from peftport.memory import collect_rarely

collect_rarely()
