"""The numbers of the contract, each with its unit and its reason.

Both ends of the wire read them from here; the relay's operator can override
most of them by settings, and `auth.ok` announces what is in force.
"""

# Bytes of one WebSocket message, summed over its fragments. A 5 MB picture in
# base64 does not fit, which is why v2 sends files in chunks.
MAX_MESSAGE_BYTES = 5 * 1024 * 1024

# Bytes of the first message, `auth`. Nobody is known yet, so nobody gets to
# make the relay buffer five megabytes.
MAX_AUTH_BYTES = 64 * 1024

# Messages per minute by role; the burst is the minute's worth.
PHONE_MESSAGES_PER_MINUTE = 30
AGENT_MESSAGES_PER_MINUTE = 120

# Frames per second of the stream class. A fast model writes some hundreds of
# tokens a second; a reply of thousands of deltas must pass as a burst.
STREAM_FRAMES_PER_SECOND = 1_000
STREAM_BURST_SECONDS = 5

# A handshake is one message for each connection of either side, so this only
# stops a loop of reconnects from becoming a loop of key exchanges.
KEY_EXCHANGES_PER_MINUTE = 30

# Application pings: one a second is more than any client needs.
PINGS_PER_MINUTE = 60

# Invalid messages that are answered before their sender is slowed.
INVALID_PER_MINUTE = 30

# WebSocket payload bytes for each token, both directions together, in UTC days
# and months, counted once when the receiver's queue takes them.
DAILY_QUOTA_BYTES = 500 * 1024 * 1024
MONTHLY_QUOTA_BYTES = 10 * 1024 * 1024 * 1024

# Bytes of `key_exchange` and `chat.error` that pass although the quota is used
# up, so that neither side waits for ever on an answer that cannot come.
QUOTA_EXEMPT_BYTES = 4 * 1024

# Bytes (UTF-8) of an id that an error repeats as `ref`.
MAX_REF_BYTES = 128

# Integers stay where JavaScript's numbers are exact.
MAX_SAFE_INTEGER = 2**53

# Bytes buffered in each direction of a connection before its sender is slowed.
# One message may always go on top, so memory is bounded by this plus one message.
HIGH_WATER_BYTES = 1024 * 1024

# Bytes below which a slowed sender goes on. The distance to the high-water
# mark keeps a busy pair from stopping and starting at every frame.
LOW_WATER_BYTES = 512 * 1024

# Bytes of an oversized message that are read and thrown away, so that a client
# still writing it gets to see the close code instead of a reset.
DISCARD_BYTES = 16 * 1024 * 1024

# Replacements a minute for a token and role, beyond which two clients that
# fight over one place are told to try later.
REPLACEMENTS_PER_MINUTE = 6

# Bytes of a file in one `file.chunk`: with base64, encryption and base64 again it
# becomes a frame of 120 KiB, small enough to pass between the deltas of a reply.
FILE_CHUNK_BYTES = 64 * 1024

# Chunks on their way that nobody has acknowledged yet.
FILE_WINDOW = 4

# Bytes of one file that a receiver takes unless told otherwise.
MAX_FILE_BYTES = 25_000_000

# Ids that a receiver remembers, to drop what comes again.
SEEN_IDS = 1024
