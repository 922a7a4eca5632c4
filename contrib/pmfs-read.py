#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Read files out of a pmfs image without pmfs: doc/format.md, put to the test.

    pmfs-read.py IMAGE                       volumes
    pmfs-read.py IMAGE ls [PATH] [VOLUME]    a directory
    pmfs-read.py IMAGE cat PATH [VOLUME]     a file, to standard output
    pmfs-read.py IMAGE extract DIR [VOLUME]  the whole tree into an empty directory

VOLUME is the name of a snapshot; the default is the live tree.  The image must not be mounted.  Checksums are verified when
the module xxhash is there (Debian: python3-xxhash).
"""
import os
import stat
import struct
import sys

try:
    import xxhash
except ImportError:
    xxhash = None

PAGE = 4096
SLOT_FRAMES = 32
MAGIC = b"pmfs\r\n\x1a\n"
NEW = 1 << 63
LIVE, SNAPSHOT = 1, 2
ROOT = 1
INLINE = 1
LEAF, NODE = 0x6C644D50, 0x6E644D50


class Damaged(Exception):
    pass


def hash64(data):
    return xxhash.xxh3_64_intdigest(data) if xxhash else None


def verify(data, want, what):
    have = hash64(data)
    if have is not None and have != want:
        raise Damaged(f"{what} does not match its checksum")


class Image:
    def __init__(self, path):
        self.file = open(path, "rb")
        slots = [s for s in (self.slot(0), self.slot(1)) if s]
        if not slots:
            raise Damaged("no valid superblock: not a pmfs image, or a damaged one")
        self.super = max(slots, key=lambda s: s["generation"])
        self.deltas = self.super["deltas"]

    def frame(self, pfn):
        self.file.seek(pfn * PAGE)
        data = self.file.read(PAGE)
        if len(data) != PAGE:
            raise Damaged(f"the image ends before frame {pfn}")
        return data

    def slot(self, n):
        self.file.seek(n * SLOT_FRAMES * PAGE)
        raw = self.file.read(SLOT_FRAMES * PAGE)
        if len(raw) < 256 or raw[:8] != MAGIC:
            return None
        version, _, incompat, frames = struct.unpack_from("<4I", raw, 8)
        if version != 1 or incompat or frames != SLOT_FRAMES:
            return None
        s = {}
        s["generation"], s["frames"], s["limit"], s["vpn_limit"], s["map_root"], s["map_checksum"] = struct.unpack_from("<6Q", raw, 24)
        s["map_height"], count = struct.unpack_from("<2I", raw, 72)
        delta_checksum, s["created"] = struct.unpack_from("<2Q", raw, 80)
        s["label"] = raw[112:176].rstrip(b"\0").decode(errors="replace")
        s["table"], s["table_height"], s["rows"], _, s["live"] = struct.unpack_from("<QIIQQ", raw, 176)
        (checksum,) = struct.unpack_from("<Q", raw, 248)
        records = raw[256:256 + count * 24]
        if len(records) != count * 24:
            return None
        if xxhash and (hash64(raw[:248]) != checksum or hash64(records) != delta_checksum):
            return None
        s["deltas"] = {}
        for vpn, where, digest in struct.iter_unpack("<3Q", records):
            s["deltas"][vpn & ~NEW] = (where, digest)
            if vpn & NEW and xxhash and hash64(self.frame(where & (1 << 36) - 1)) != digest:
                return None
        return s

    def page(self, vpn):
        """The contents of a page."""
        if vpn in self.deltas:
            where, digest = self.deltas[vpn]
        else:
            where, digest = self.map_entry(vpn)
        if not where >> 36:
            raise Damaged(f"page {vpn} is free, but something points at it")
        pfn = where & (1 << 36) - 1
        if not pfn:
            return bytes(PAGE)
        data = self.frame(pfn)
        verify(data, digest, f"page {vpn} (frame {pfn})")
        return data

    def map_entry(self, vpn):
        pfn, checksum = self.super["map_root"], self.super["map_checksum"]
        height = self.super["map_height"]
        if vpn >> 8 * height or not pfn:
            return 0, 0
        for level in range(height - 1, -1, -1):
            node = self.frame(pfn)
            verify(node, checksum, f"page map node in frame {pfn}")
            pfn, checksum = struct.unpack_from("<2Q", node, (vpn >> 8 * level & 255) * 16)
            if level and not pfn:
                return 0, 0
        return pfn, checksum

    def file_page(self, root, height, index):
        """A page of a file; None: a hole."""
        if not root or index >> 9 * height:
            return None
        for level in range(height - 1, -1, -1):
            (root,) = struct.unpack_from("<Q", self.page(root), (index >> 9 * level & 511) * 8)
            if not root:
                return None
        return self.page(root)

    def volumes(self):
        for row in range(self.super["rows"]):
            page = self.file_page(self.super["table"], self.super["table_height"], row // 4)
            if page is None:
                continue
            raw = page[row % 4 * 1024:][:1024]
            state, _, ident, generation, created, root, height = struct.unpack_from("<IIQQQQI", raw)
            if state in (LIVE, SNAPSHOT):
                yield Volume(self, state, ident, created, root, height,
                             raw[288:544].rstrip(b"\0").decode(errors="replace"),
                             raw[544:1024].rstrip(b"\0").decode(errors="replace"))


class Inode:
    def __init__(self, raw):
        (self.mode, self.flags, self.uid, self.gid, self.nlink, self.rdev,
         self.size, self.pages, self.generation) = struct.unpack_from("<6I3Q", raw)
        self.atime, self.mtime = (s * 10**9 + n for s, n in zip(struct.unpack_from("<2q", raw, 48), struct.unpack_from("<2I", raw, 80)))
        self.root, self.height = struct.unpack_from("<QI", raw, 104)
        self.inline = raw[144:256]


class Volume:
    def __init__(self, image, state, ident, created, root, height, name, message):
        self.image, self.state, self.id, self.created = image, state, ident, created
        self.root, self.height, self.name, self.message = root, height, name, message

    def inode(self, ino):
        page = self.image.file_page(self.root, self.height, ino // 16)
        inode = Inode(page[ino % 16 * 256:][:256]) if page else None
        if not inode or not inode.mode:
            raise Damaged(f"inode {ino} is free, but something points at it")
        return inode

    def contents(self, inode):
        """Pieces of a file's contents; None: a page of zeros."""
        if inode.flags & INLINE:
            yield inode.inline[:inode.size]
            return
        for index in range((inode.size + PAGE - 1) // PAGE):
            page = self.image.file_page(inode.root, inode.height, index)
            yield page[:inode.size - index * PAGE] if page else None

    def entries(self, inode, index=0, level=None):
        page = self.image.file_page(inode.root, inode.height, index)
        if page is None:
            if index == 0:
                return
            raise Damaged(f"a directory has a hole at page {index}")
        magic, count, depth = struct.unpack_from("<IHH", page)
        if magic not in (LEAF, NODE) or (magic == LEAF) != (depth == 0) or level not in (None, depth):
            raise Damaged(f"page {index} of a directory is none of its pages")
        for n in range(count):
            at = 32 + n * 16
            if magic == NODE:
                yield from self.entries(inode, struct.unpack_from("<Q", page, at + 8)[0], depth - 1)
                continue
            (record,) = struct.unpack_from("<H", page, at + 8)
            ino, length = struct.unpack_from("<QB", page, record)
            yield page[record + 9:record + 9 + length], ino

    def find(self, path):
        inode = self.inode(ROOT)
        for name in os.fsencode(path).split(b"/"):
            if name in (b"", b"."):
                continue
            if not stat.S_ISDIR(inode.mode):
                raise Damaged(f"{path}: not a directory on the way")
            ino = dict(self.entries(inode)).get(name)
            if ino is None:
                raise Damaged(f"{path}: no such file")
            inode = self.inode(ino)
        return inode

    def extract(self, target):
        done = {}
        times = []

        def put(ino, path):
            inode = self.inode(ino)
            kind = stat.S_IFMT(inode.mode)
            if ino in done:
                os.link(done[ino], path, follow_symlinks=False)
                return
            if kind == stat.S_IFDIR:
                os.makedirs(path, exist_ok=True)
                for name, child in self.entries(inode):
                    put(child, os.path.join(path, name))
            elif kind == stat.S_IFREG:
                with open(path, "wb") as out:
                    for piece in self.contents(inode):
                        if piece is None:
                            out.seek(PAGE, os.SEEK_CUR)
                        else:
                            out.write(piece)
                    out.truncate(inode.size)
            elif kind == stat.S_IFLNK:
                os.symlink(b"".join(p or bytes(PAGE) for p in self.contents(inode)), path)
            else:
                os.mknod(path, inode.mode, os.makedev(inode.rdev >> 20, inode.rdev & (1 << 20) - 1))
            if kind != stat.S_IFDIR:
                done[ino] = path
            if os.geteuid() == 0:
                os.lchown(path, inode.uid, inode.gid)
            if kind != stat.S_IFLNK:
                os.chmod(path, stat.S_IMODE(inode.mode))
            times.append((path, inode.atime, inode.mtime))

        put(ROOT, os.fsencode(target))
        for path, atime, mtime in times:
            os.utime(path, ns=(atime, mtime), follow_symlinks=False)


def main(argv):
    if len(argv) < 2 or argv[1] in ("-h", "--help"):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    image = Image(argv[1])
    if len(argv) == 2:
        for volume in image.volumes():
            print(volume.id, "live" if volume.state == LIVE else volume.name, volume.message, sep="\t")
        return 0
    command, rest = argv[2], argv[3:]
    want = rest[1] if len(rest) > 1 else None
    volume = next((v for v in image.volumes() if (v.state == LIVE if want is None else v.name == want)), None)
    if volume is None:
        raise Damaged(f"no snapshot {want}")
    if command == "ls":
        inode = volume.find(rest[0] if rest else "")
        for name, ino in sorted(volume.entries(inode)):
            child = volume.inode(ino)
            print(stat.filemode(child.mode), child.nlink, child.uid, child.gid, child.size, os.fsdecode(name))
    elif command == "cat" and rest:
        for piece in volume.contents(volume.find(rest[0])):
            sys.stdout.buffer.write(piece if piece is not None else bytes(PAGE))
    elif command == "extract" and rest:
        volume.extract(rest[0])
    else:
        return main(argv[:1])
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv))
    except (Damaged, OSError) as error:
        sys.exit(f"pmfs-read.py: {error}")
    except BrokenPipeError:
        sys.exit(0)
