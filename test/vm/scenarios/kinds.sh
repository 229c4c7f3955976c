# USB devices of every shape, one after the other: there before the agent, a stick that types, a keyboard in place of a
# stick, two sticks with one serial number, a phone, a dock with six devices, an encrypted stick, a device that will not
# stay, a suspend of the PC. Leaves /tmp/tee.jsonl, /tmp/marks and /tmp/kernel.log; the checks come on the host.
. /tmp/lib.sh
export DM_DISABLE_UDEV=1
limit=90 # seconds for what takes two on a PC: the guest has a twentieth of its speed, and its host may be busy
events() { grep -v '"kind":"alert"' $tee | grep -cE "$1"; } # an alert quotes its events
seen() { [ "$(events "$2")" -ge "$1" ]; }
told() { within $limit seen "${2:-1}" "\"usb-attached\".*$1|$1.*\"usb-attached\""; }
gone() { within $limit seen "${2:-1}" "\"usb-detached\".*$1|$1.*\"usb-detached\""; }
mounted() { within $limit seen 1 "\"volume-mounted\".*$1|$1.*\"volume-mounted\""; }
unmounted() { within $limit seen 1 "\"volume-unmounted\".*$1|$1.*\"volume-unmounted\""; }
plugged() { echo $(($(events '"usb-attached"') - $(events '"usb-detached"'))); }
plugged_are() { [ "$(plugged)" -eq "$1" ]; }

mkdir -p /var/lib/sekisho /mnt/luks /mnt/image /mnt/phone
: >$tee
mark start
vm plug BOOT || exit 1
vm part BOOT >/dev/null
sekisho-agent run --config /etc/agent.yaml --tee $tee >/tmp/agent.out 2>/tmp/agent.log &
agent=$!
await $limit '"agent-started"' || exit 1
told BOOT-1
mark badusb
truncate -s 16M /tmp/lun && mkdosfs /tmp/lun
vm gadget BAD vid=0x0781 pid=0x5581 serial=BAD-1 maker=SanDisk product=Ultra storage=/tmp/lun kbd || exit 1
told BAD-1
vm unplug BAD
gone BAD-1
mark swap
vm gadget STICK vid=0x0781 pid=0x5567 serial=SWAP-1 maker=SanDisk product=Cruzer storage=/tmp/lun || exit 1
told SWAP-1
vm unplug STICK
vm gadget KEYS vid=0x046d pid=0xc31c maker=Logitech product=Keyboard kbd || exit 1
told '"c31c"'
vm unplug KEYS
gone '"c31c"'

mark twins
vm plug T1 || exit 1
told TWIN-1 # the second is to be the copy
vm plug T2 || exit 1
told TWIN-1 2
vm mount T1 /mnt/t1 && vm mount T2 /mnt/t2 || exit 1
mounted /mnt/t1 && mounted /mnt/t2
umount /mnt/t1
umount /mnt/t2
vm unplug T1 T2
gone TWIN-1 2

mark phone
vm plug PHONE || exit 1
told '"mtp"'
modprobe fuse
mkdir -p /usr/share/misc && printf '0\tstring\tPK\tzip\n' >/usr/share/misc/magic # jmtpfs asks libmagic
jmtpfs /mnt/phone && ls /mnt/phone/* && mounted /mnt/phone
umount /mnt/phone
unmounted /mnt/phone
phone=$(vm sys PHONE)
(exec sleep 1000 <"/dev/bus/usb/$(printf %03d "$(cat $phone/busnum)")/$(printf %03d "$(cat $phone/devnum)")") & # as file managers do, without a mount
holder=$!
within $limit seen 1 '"open-files"'
kill $holder
within $limit seen 2 '"open-files"'
vm unplug PHONE
gone '"mtp"'

mark dock
vm plug DOCK && vm plug D1 D2 D3 D4 D5 D6 || exit 1
for kind in DOCKED-1 '"mouse"' '"network"' '"audio"' '"smartcard"'; do
	told "$kind"
done
vm unplug D6 D5 D4 D3 D2 D1 DOCK
gone '"hub"'

mark luks
date -s "$(date -d @$(($(date +%s) + 3600)) '+%Y-%m-%d %H:%M:%S')" # the clock is put right meanwhile
mark shifted
modprobe -a dm_mod dm_crypt algif_skcipher
vm plug L1 || exit 1
told LUKS-1
disk=$(vm dev L1)
echo secret >/tmp/key
cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "$disk" /tmp/key &&
	cryptsetup open --key-file /tmp/key "$disk" secret && dmsetup create --table "0 20480 linear /dev/mapper/secret 0" part || exit 1
mknod /dev/part b "$(cut -d: -f1 /sys/block/dm-1/dev)" "$(cut -d: -f2 /sys/block/dm-1/dev)"
mkdosfs /dev/part && mount -t vfat /dev/part /mnt/luks && mounted /mnt/luks
truncate -s 4M /mnt/luks/image
modprobe loop
losetup /dev/loop0 /mnt/luks/image && mkdosfs /dev/loop0 && mount -t vfat /dev/loop0 /mnt/image && mounted /mnt/image
umount /mnt/image
losetup -d /dev/loop0
umount /mnt/luks
dmsetup remove part
cryptsetup close secret
vm unplug L1
gone LUKS-1

mark flap
was=$(plugged)
vm gadget FLAP vid=0x0951 pid=0x1666 serial=FLAP-1 maker=Kingston product=DataTraveler acm || exit 1
udc=/sys/kernel/config/usb_gadget/FLAP/UDC
name=$(cat $udc)
port=$(vm sys FLAP)
for i in $(seq 16); do # as fast as the kernel takes it
	echo >$udc
	while [ -d "$port" ]; do usleep 10000; done
	echo "$name" >$udc
	until [ -d "$port" ]; do usleep 10000; done
done
mark flapped
usleep 12000000 # it stays, and is told within ten seconds
within $limit plugged_are $((was + 1))
vm unplug FLAP
within $limit plugged_are "$was"

mark sleep
vm plug S1 || exit 1
told SLEEP-1
vm part S1 >/dev/null
mark asleep
echo core >/sys/power/pm_test # a real sleep but for the last step; the kernel wakes up by itself after 5 s
echo mem >/sys/power/state && echo "slept, $(cat /proc/uptime) s since the start"
usleep 3000000
mark awake
vm sys S1 && cat /sys/bus/usb/devices/*/serial
vm unplug S1
gone SLEEP-1

mark end
dmesg >/tmp/kernel.log
kill -TERM $agent
wait $agent
echo "the agent ended with status $?"
cat /tmp/agent.log
