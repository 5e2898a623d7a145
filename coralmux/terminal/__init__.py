"""`coralmux-phone`: the terminal phone, on the public library.

cli        the entry point, which needs no package beyond the library's own
commands   what can be typed: options, help, exit statuses
pairing    which link, which agent's state
ask        one question, for people and scripts
chat       a conversation; its commands are in slash
reach      waiting for the agent, and for what keeps us waiting
words      what happened, as sentences; what may reach a terminal
output     where sentences and answers are written
pictures   files with a question, and with an answer
"""
