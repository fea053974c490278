"""How each picture is drawn: from data to a figure. One file per lesson."""
