"""Edits a value in a row store that was opened once: a forged key, a newer format. The first start's rows are all in RocksDB's
write-ahead log, whose records (32 KiB blocks; masked CRC-32C, length, type, payload) are rewritten here with a right checksum."""
import struct

BLOCK = 32768
_table = []
for _n in range(256):
    for _ in range(8):
        _n = (_n >> 1) ^ (0x82F63B78 if _n & 1 else 0)
    _table.append(_n)


def crc32c(data):
    c = 0xFFFFFFFF
    for b in data:
        c = _table[(c ^ b) & 0xFF] ^ (c >> 8)
    return c ^ 0xFFFFFFFF


def masked(c):
    return (((c >> 15) | (c << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    """(offset of the header, header's size, length) of every record."""
    at = 0
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if kind == 0 and length == 0:
            return
        size = 11 if 5 <= kind <= 8 else 7
        yield at, size, length
        at += size + length


def set_row(data_dir, key, change):
    """Replaces the value of `key` by change(value), of equal length, wherever the log holds it. Returns how often."""
    edited = 0
    for path in sorted((data_dir / "rows").glob("*.log")):
        data = bytearray(path.read_bytes())
        for at, size, length in records(data):
            payload = bytes(data[at + size:at + size + length])
            found = payload.find(bytes([len(key)]) + key)
            if found < 0:
                continue
            value = found + 1 + len(key)
            n = payload[value]
            old = payload[value + 1:value + 1 + n]
            new = change(old)
            assert len(new) == len(old) == n < 128
            data[at + size + value + 1:at + size + value + 1 + n] = new
            checked = data[at + 6:at + size + length]
            struct.pack_into("<I", data, at, masked(crc32c(checked)))
            edited += 1
        path.write_bytes(bytes(data))
    assert edited, f"{key} is not in the log of {data_dir}"
    return edited
