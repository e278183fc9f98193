"""Reading and writing rosbag2 bags: sqlite3 and mcap, compressed or not, whole or cut short.

`reader` reads whatever is whole of a bag, `writer` makes bags that are the same to the last bit
for the same messages, `definitions` knows the message types that go into them.
"""
