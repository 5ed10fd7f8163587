"""Hubs: addresses, the client, and a push of one folder as one commit."""
