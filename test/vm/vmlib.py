"""Parts shared by `run` and `setup`: cache, kernel, initramfs, accelerator."""
import lzma
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
FORMAT = "7"  # raise it when the layout of anything in the cache changes

# Everything the guest may need; dependencies are added, names the kernel does
# not have are skipped. The file systems and class drivers load on demand.
MODULES = """
virtio_pci virtio_blk virtio_net virtio_console virtio_rng
xhci_pci ehci_pci uhci_hcd usb_storage uas sd_mod sr_mod sg
vfat exfat ext4 ntfs3 isofs udf fuse overlay loop
nls_iso8859_1 nls_cp437 nls_utf8 nls_ascii crc32c_generic
usbhid hid_generic evdev
usbnet cdc_ether cdc_ncm rndis_host cdc_acm usbserial ftdi_sio snd_usb_audio
dummy_hcd libcomposite configfs
usb_f_mass_storage usb_f_hid usb_f_ecm usb_f_rndis usb_f_acm usb_f_fs
usbmon cifs md4 md5 cmac hmac ccm gcm ctr cbc ecb seqiv ghash_generic aes_generic
sha256_generic sha512_generic xts algif_skcipher algif_hash dm_mod dm_crypt nls_utf8 nfs nfsv3 nfsv4 nfsd rpcsec_gss_krb5 dns_resolver
af_packet autofs4 nf_tables unix
""".split()

PACKAGES = {  # program -> Debian package
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "mkfs.vfat": "dosfstools",
    "mkfs.exfat": "exfatprogs",
    "mkfs.ext4": "e2fsprogs",
    "mcopy": "mtools",
    "depmod": "kmod",
    "cryptsetup": "cryptsetup-bin",  # these four run in the guest (scenarios/kinds.sh, rpm.sh)
    "dmsetup": "dmsetup",
    "jmtpfs": "jmtpfs",
    "rpm": "rpm",
}

ROOTFS_PACKAGES = """systemd systemd-sysv libpam-systemd udev dbus kmod procps iproute2 usbutils
util-linux e2fsprogs dosfstools exfatprogs ca-certificates udisks2
samba cifs-utils nfs-kernel-server nfs-common""".split()


def log(msg):
    print("vm: " + msg, file=sys.stderr, flush=True)


class Failure(Exception):
    pass


def cache_dir():
    base = os.environ.get("VM_CACHE")
    if not base:
        base = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "agent-vm")
    os.makedirs(base, exist_ok=True)
    return base


def call(*argv, **kw):
    p = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kw)
    if p.returncode:
        raise Failure("%s: exit %d\n%s" % (" ".join(argv[:6]), p.returncode, p.stdout[-2000:]))
    return p.stdout


def apt_install(pkgs):
    if not pkgs:
        return
    log("installing " + " ".join(pkgs))
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    base = ["apt-get", "-o", "DPkg::Lock::Timeout=600", "-y"]
    if os.geteuid() != 0:
        base.insert(0, "sudo")
    argv = base + ["install", "--no-install-recommends"] + pkgs
    if subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        call(*base, "update", env=env)
        call(*argv, env=env)


def which(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


# --- cpio (newc), as the kernel reads it -----------------------------------

class Cpio:
    """Writes an initramfs segment; several of them may follow one another."""

    def __init__(self, path):
        self.f = open(path, "wb")
        self.ino = 1
        self.dirs = set()

    def _entry(self, name, mode, data=b"", rdev=(0, 0)):
        name = name.strip("/")
        raw = name.encode() + b"\0"
        self.ino += 1
        hdr = "070701" + "".join("%08X" % v for v in (
            self.ino, mode, 0, 0, 1, 0, len(data), 0, 0, rdev[0], rdev[1], len(raw), 0))
        self.f.write(hdr.encode() + raw)
        self.f.write(b"\0" * (-self.f.tell() % 4))
        self.f.write(data)
        self.f.write(b"\0" * (-self.f.tell() % 4))

    def dir(self, name, mode=0o755):
        name = name.strip("/")
        if not name or name in self.dirs:
            return
        self.dir(os.path.dirname(name))
        self.dirs.add(name)
        self._entry(name, stat.S_IFDIR | mode)

    def data(self, name, data, mode=0o644):
        self.dir(os.path.dirname(name.strip("/")))
        self._entry(name, stat.S_IFREG | mode, data)

    def link(self, name, target):
        self.dir(os.path.dirname(name.strip("/")))
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def node(self, name, mode, major, minor):
        self.dir(os.path.dirname(name.strip("/")))
        self._entry(name, mode, rdev=(major, minor))

    def tree(self, src, dst):
        """A file, or a directory with all it holds."""
        if os.path.isdir(src):
            self.dir(dst, stat.S_IMODE(os.stat(src).st_mode))
            for n in sorted(os.listdir(src)):
                p = os.path.join(src, n)
                if os.path.islink(p):
                    self.link(dst + "/" + n, os.readlink(p))
                else:
                    self.tree(p, dst + "/" + n)
        else:
            with open(src, "rb") as f:
                self.data(dst, f.read(), stat.S_IMODE(os.stat(src).st_mode))

    def close(self):
        self._entry("TRAILER!!!", 0)
        self.f.write(b"\0" * (-self.f.tell() % 512))
        self.f.close()


# --- kernel ------------------------------------------------------------------

def find_kernel():
    """(vmlinuz, module tree, version): an installed one, else unpacked to the cache."""
    def newest(boot, mods):
        best = None
        for v in os.listdir(mods) if os.path.isdir(mods) else ():
            k = os.path.join(boot, "vmlinuz-" + v)
            if os.path.exists(k) and os.path.isdir(os.path.join(mods, v, "kernel")):
                key = [int(x) for x in v.replace("-", ".").split(".") if x.isdigit()]
                if best is None or key > best[0]:
                    best = (key, k, os.path.join(mods, v), v)
        return best and best[1:]

    pkg = os.environ.get("VM_KERNEL_PACKAGE", "linux-image-amd64")
    unpacked = os.path.join(cache_dir(), "kernel-" + pkg)
    def in_cache():
        for m in ("lib/modules", "usr/lib/modules"):
            k = newest(os.path.join(unpacked, "boot"), os.path.join(unpacked, m))
            if k:
                return k
    k = in_cache()
    if not k and pkg == "linux-image-amd64":
        k = newest("/boot", "/lib/modules")
    if k:
        return k
    # apt-get download needs no root and leaves the host's own boot files alone
    log("fetching the kernel package " + pkg)
    name = pkg
    for line in call("apt-cache", "depends", pkg).splitlines():
        w = line.split()
        if len(w) == 2 and w[0] == "Depends:" and w[1].startswith("linux-image-"):
            name = w[1]
            break
    with tempfile.TemporaryDirectory(dir=cache_dir()) as d:
        os.chmod(d, 0o755)
        call("apt-get", "download", name, cwd=d)
        deb = [n for n in os.listdir(d) if n.endswith(".deb")][0]
        shutil.rmtree(unpacked, ignore_errors=True)
        call("dpkg-deb", "-x", os.path.join(d, deb), unpacked)
    return in_cache()


def unpack_kernel(vmlinuz, dest):
    """The ELF image inside a bzImage: qemu enters it directly (PVH), which spares
    the guest the decompression, seconds without hardware acceleration."""
    with open(vmlinuz, "rb") as f:
        data = f.read()
    at = data.find(b"\xfd7zXZ\0")
    out = b""
    if at > 0:
        out = lzma.LZMADecompressor().decompress(data[at:])
    elif b"\x28\xb5\x2f\xfd" in data and which("zstd"):
        at = data.index(b"\x28\xb5\x2f\xfd")
        out = subprocess.run(["zstd", "-dc"], input=data[at:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    if out[:4] != b"\x7fELF":
        out = data
    with open(dest, "wb") as f:
        f.write(out)


def collect_modules(tree, version, dest):
    """Copy MODULES and what they depend on to dest/lib/modules/VERSION."""
    if not os.path.exists(os.path.join(tree, "modules.dep")):
        call(which("depmod"), "-b", tree[:tree.index("/lib/modules")], version)
    deps, by_name = {}, {}
    with open(os.path.join(tree, "modules.dep")) as f:
        for line in f:
            path, _, rest = line.strip().partition(":")
            deps[path] = rest.split()
            by_name[os.path.basename(path).split(".ko")[0].replace("-", "_")] = path
    out = os.path.join(dest, "lib/modules", version)
    want = set()
    for m in MODULES:
        p = by_name.get(m.replace("-", "_"))
        if p:
            want.add(p)
            want.update(deps[p])
    for p in sorted(want):
        dst = os.path.join(out, p)
        os.makedirs(os.path.dirname(dst), exist_ok=True)
        src = os.path.join(tree, p)
        if p.endswith(".ko"):
            shutil.copyfile(src, dst)
        else:  # busybox loads plain files only
            tool = {"xz": "xz", "zst": "zstd", "gz": "gzip"}[p.rsplit(".", 1)[1]]
            with open(dst[:dst.rindex(".")], "wb") as f:
                subprocess.run([tool, "-dc", src], stdout=f, check=True)
    for n in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        if os.path.exists(os.path.join(tree, n)):
            shutil.copyfile(os.path.join(tree, n), os.path.join(out, n))
    call(which("depmod"), "-b", dest, version)
    return len(want)


# --- cached artefacts --------------------------------------------------------

def stamp_ok(name, value):
    p = os.path.join(cache_dir(), name + ".stamp")
    return os.path.exists(p) and open(p).read() == value


def stamp(name, value):
    with open(os.path.join(cache_dir(), name + ".stamp"), "w") as f:
        f.write(value)


def base():
    """Cached (vmlinuz, base initramfs, modules dir, version); built on first use."""
    vmlinuz, tree, version = find_kernel()
    c = cache_dir()
    img, mods, kernel = (os.path.join(c, n) for n in ("base.cpio", "modules", "kernel"))
    bb = which("busybox")
    if not bb:
        raise Failure("busybox-static is missing; run test/vm/setup")
    tag = "%s %s %d %d %08x" % (FORMAT, version, os.stat(bb).st_size, os.stat(vmlinuz).st_mtime, zlib.crc32(" ".join(MODULES).encode()))
    if not (stamp_ok("base", tag) and os.path.exists(img)):
        t = time.time()
        shutil.rmtree(mods, ignore_errors=True)
        n = collect_modules(tree, version, mods)
        a = Cpio(img + ".new")
        for d in ("dev", "proc", "sys", "run", "tmp", "root", "mnt", "media", "etc", "var/log", "usr/bin",
                  "usr/sbin", "usr/local/bin", "lib64", "opt", "home/user"):
            a.dir(d)
        a.node("dev/console", stat.S_IFCHR | 0o600, 5, 1)
        a.node("dev/null", stat.S_IFCHR | 0o666, 1, 3)
        a.tree(bb, "bin/busybox")
        for p in call(bb, "--list").split():
            if p != "busybox":
                a.link("bin/" + p, "busybox")
        a.link("sbin", "bin")
        a.data("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n")
        a.data("etc/group", b"root:x:0:\nuser:x:1000:\n")
        a.data("etc/hosts", b"127.0.0.1 localhost\n")
        a.tree(os.path.join(mods, "lib/modules"), "lib/modules")
        a.close()
        unpack_kernel(vmlinuz, kernel)
        os.replace(img + ".new", img)
        stamp("base", tag)
        log("base initramfs: %d modules of %s, %.0f MB, built in %.1f s" % (
            n, version, os.stat(img).st_size / 1e6, time.time() - t))
    return kernel, img, mods, version


def accel(wanted="auto"):
    """kvm where a guest really boots under it, else tcg. A /dev/kvm that opens
    proves nothing (some nested hosts run only kernels built for them), so boot once."""
    if wanted != "auto":
        return wanted
    wanted = os.environ.get("VM_ACCEL", "auto")
    if wanted != "auto":
        return wanted
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    tag = os.uname().release + " " + open("/proc/sys/kernel/random/boot_id").read().strip()
    for a in ("kvm", "tcg"):
        if stamp_ok("accel", tag + " " + a):
            return a
    vmlinuz = find_kernel()[0]
    found = "tcg"
    with tempfile.TemporaryDirectory() as d:
        out = os.path.join(d, "serial")
        p = subprocess.Popen(
            [which("qemu-system-x86_64"), "-accel", "kvm", "-cpu", "host", "-M", "q35", "-m", "256", "-display", "none",
             "-nodefaults", "-serial", "file:" + out, "-no-reboot", "-kernel", vmlinuz,
             "-append", "console=ttyS0 panic=-1"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.time() + 15
        while time.time() < end and p.poll() is None:
            if os.path.exists(out) and b"Linux version" in open(out, "rb").read():
                found = "kvm"
                break
            time.sleep(0.2)
        if p.poll() is None:
            p.kill()
        p.wait()
    log("accelerator: %s%s" % (found, "" if found == "kvm" else " (/dev/kvm is there, but a stock kernel does not boot under it)"))
    stamp("accel", tag + " " + found)
    return found


def rootfs_image(name):
    return os.path.join(cache_dir(), "rootfs-%s.img" % name)


def build_rootfs(name, suite="bookworm", extra=()):
    """A Debian root file system with systemd as an ext4 image. Needs root."""
    _, _, mods, version = base()
    pkgs = ROOTFS_PACKAGES + list(extra)
    tag = " ".join([FORMAT, version, suite] + pkgs)
    img = rootfs_image(name)
    if stamp_ok("rootfs-" + name, tag) and os.path.exists(img):
        return img
    if not which("mmdebstrap"):
        apt_install(["mmdebstrap"])
    t = time.time()
    log("building the Debian root file system (%s)" % suite)
    with tempfile.TemporaryDirectory(dir=cache_dir()) as d:
        root = os.path.join(d, "root")
        os.mkdir(root)
        os.chmod(d, 0o755)
        call(which("mmdebstrap"), "--variant=minbase", "--include=" + ",".join(pkgs),
             "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
             "--dpkgopt=path-exclude=/usr/share/doc/*", suite, root)
        shutil.copytree(os.path.join(mods, "lib/modules"), os.path.join(root, "usr/lib/modules"), dirs_exist_ok=True)
        for unit in ("smbd.service", "nmbd.service", "samba-ad-dc.service", "nfs-server.service", "apt-daily.timer",
                     "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer", "dpkg-db-backup.timer",
                     "e2scrub_reap.service", "systemd-timesyncd.service", "nfs-blkmap.service", "rpcbind.service",
                     "rpcbind.socket", "rpc-statd.service", "nfs-client.target", "winbind.service",
                     "getty@tty1.service", "udisks2.service"):  # udisks2 still starts over D-Bus when asked
            subprocess.run(["systemctl", "--root=" + root, "disable", unit],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for unit in ("getty.target", "serial-getty@ttyS0.service", "systemd-update-utmp.service",
                     "systemd-update-utmp-runlevel.service", "nfs-blkmap.service", "systemd-pstore.service",
                     "modprobe@efi_pstore.service", "modprobe@drm.service", "samba-ad-dc.service",
                     "systemd-journal-flush.service", "keyboard-setup.service", "console-setup.service",
                     "systemd-hwdb-update.service", "ldconfig.service",
                     "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "proc-sys-fs-binfmt_misc.mount"):
            path = os.path.join(root, "etc/systemd/system", unit)
            if os.path.lexists(path):
                os.unlink(path)
            os.symlink("/dev/null", path)
        link = os.path.join(root, "etc/systemd/system/default.target")
        if os.path.lexists(link):
            os.unlink(link)
        os.symlink("/lib/systemd/system/multi-user.target", link)
        with open(os.path.join(root, "etc/hostname"), "w") as f:
            f.write("endpoint\n")
        with open(os.path.join(root, "etc/hosts"), "w") as f:
            f.write("127.0.0.1 localhost endpoint\n")
        for p in ("var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(os.path.join(root, p), ignore_errors=True)
        os.makedirs(os.path.join(root, "vm"), exist_ok=True)
        used = int(call("du", "-sm", root).split()[0])
        with open(img + ".new", "wb") as f:
            f.truncate((used * 5 // 4 + 1024) << 20)
        call(which("mkfs.ext4"), "-q", "-F", "-d", root, "-L", "root", img + ".new")
    os.replace(img + ".new", img)
    stamp("rootfs-" + name, tag)
    log("root file system: %d MB used, image takes %d MB, built in %.0f s" % (
        used, os.stat(img).st_blocks * 512 >> 20, time.time() - t))
    return img
