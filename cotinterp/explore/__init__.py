"""What people play with: one session object, one web module over it, a loopback server and a notebook widget."""
