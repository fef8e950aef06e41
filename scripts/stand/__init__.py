"""A real cluster on one machine: the parts of scripts/cluster.

layout.py       the folder, the ports, what the stand consists of     member.py    what every kind of process has
process.py      starting, finding, signalling and ending processes    bring.py     up and down, in order, timed
kafka.py  redis.py  postgres.py  nginx.py  switchboard.py             one kind of process each
"""
