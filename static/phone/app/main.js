// The phone begins here.
