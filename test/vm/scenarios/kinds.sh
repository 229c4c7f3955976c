# USB devices of every shape, one after the other: there before the agent, a stick that types, a keyboard in place of a
# stick, two sticks with one serial number, a phone, a dock with six devices, an encrypted stick, a device that will not
# stay, a suspend of the PC. Leaves /tmp/tee.jsonl, /tmp/marks and /tmp/kernel.log; the checks come on the host.
. /tmp/lib.sh
export DM_DISABLE_UDEV=1
told() { await "$1" "\"usb-attached\".*$2|$2.*\"usb-attached\"" "$3"; }
gone() { await "$1" "\"usb-detached\".*$2|$2.*\"usb-detached\"" "$3"; }
mounted() { await "$1" "\"volume-mounted\".*$2|$2.*\"volume-mounted\""; }

mkdir -p /var/lib/sekisho /mnt/luks /mnt/image /mnt/phone
: >$tee
mark start
vm plug BOOT || exit 1
vm part BOOT >/dev/null
sekisho-agent run --config /etc/agent.yaml --tee $tee >/tmp/agent.out 2>/tmp/agent.log &
agent=$!
await 30 '"agent-started"' || { cat /tmp/agent.log; exit 1; }
told 20 BOOT-1
mark badusb
truncate -s 16M /tmp/lun && mkdosfs /tmp/lun
vm gadget BAD vid=0x0781 pid=0x5581 serial=BAD-1 maker=SanDisk product=Ultra storage=/tmp/lun kbd || exit 1
told 20 BAD-1
vm unplug BAD
gone 20 BAD-1
mark swap
vm gadget STICK vid=0x0781 pid=0x5567 serial=SWAP-1 maker=SanDisk product=Cruzer storage=/tmp/lun || exit 1
told 20 SWAP-1
vm unplug STICK
vm gadget KEYS vid=0x046d pid=0xc31c maker=Logitech product=Keyboard kbd || exit 1
told 20 '"c31c"'
vm unplug KEYS
gone 20 '"c31c"'

mark twins
vm plug T1 && vm plug T2 || exit 1
told 20 TWIN-1 2
vm mount T1 /mnt/t1 && vm mount T2 /mnt/t2 || exit 1
mounted 20 /mnt/t1 && mounted 20 /mnt/t2
umount /mnt/t1
umount /mnt/t2
vm unplug T1 T2
gone 20 TWIN-1 2

mark phone
vm plug PHONE || exit 1
told 20 '"mtp"'
modprobe fuse
mkdir -p /usr/share/misc && printf '0\tstring\tPK\tzip\n' >/usr/share/misc/magic # jmtpfs asks libmagic
jmtpfs /mnt/phone && ls /mnt/phone/* && mounted 20 /mnt/phone
umount /mnt/phone
await 20 '"volume-unmounted".*/mnt/phone|/mnt/phone.*"volume-unmounted"'
phone=$(vm sys PHONE)
(exec sleep 30 <"/dev/bus/usb/$(printf %03d "$(cat $phone/busnum)")/$(printf %03d "$(cat $phone/devnum)")") & # as file managers do, without a mount
holder=$!
await 20 '"open-files"'
kill $holder
await 20 '"open-files"' 2
vm unplug PHONE
gone 20 '"mtp"'

mark dock
vm plug DOCK && vm plug D1 D2 D3 D4 D5 D6 || exit 1
told 20 DOCKED-1
told 20 '"smartcard"'
vm unplug D6 D5 D4 D3 D2 D1 DOCK
gone 20 '"hub"'

mark luks
date -s "$(date -d @$(($(date +%s) + 3600)) '+%Y-%m-%d %H:%M:%S')" # the clock is put right meanwhile
mark shifted
modprobe -a dm_mod dm_crypt algif_skcipher
vm plug L1 || exit 1
told 20 LUKS-1
disk=$(vm dev L1)
echo secret >/tmp/key
cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "$disk" /tmp/key &&
	cryptsetup open --key-file /tmp/key "$disk" secret && dmsetup create --table "0 20480 linear /dev/mapper/secret 0" part || exit 1
mknod /dev/part b "$(cut -d: -f1 /sys/block/dm-1/dev)" "$(cut -d: -f2 /sys/block/dm-1/dev)"
mkdosfs /dev/part && mount -t vfat /dev/part /mnt/luks && mounted 20 /mnt/luks
truncate -s 4M /mnt/luks/image
modprobe loop
losetup /dev/loop0 /mnt/luks/image && mkdosfs /dev/loop0 && mount -t vfat /dev/loop0 /mnt/image && mounted 20 /mnt/image
umount /mnt/image
losetup -d /dev/loop0
umount /mnt/luks
dmsetup remove part
cryptsetup close secret
vm unplug L1
gone 20 LUKS-1

mark flap
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
vm unplug FLAP

mark sleep
vm plug S1 || exit 1
told 20 SLEEP-1
vm part S1 >/dev/null
mark asleep
echo core >/sys/power/pm_test # a real sleep but for the last step; the kernel wakes up by itself after 5 s
echo mem >/sys/power/state
usleep 3000000
mark awake
vm sys S1 && cat /sys/bus/usb/devices/*/serial
vm unplug S1
gone 20 SLEEP-1

mark end
dmesg >/tmp/kernel.log
kill -TERM $agent
wait $agent
echo "the agent ended with status $?"
cat /tmp/agent.log
