// A stand-in for Windows' cfgmgr32.dll, which in Wine does not tell of devices: a
// small tree of devices and notifications by the clock, from threads that are not
// the program's, with the structures as the headers of the Windows SDK (mingw-w64)
// have them. A receiver for keyboard and mouse is there from the start; a stick
// comes and goes when the program sets the events "stick comes" and "stick goes";
// every 0.3 s a volume is said to have come; and who watches a handle is asked to let
// go of it, told that it stays, and the same again for a lock.
//
//   x86_64-w64-mingw32-gcc -shared -o cfgmgr32.dll cfgmgr32.c

#define UNICODE
#define _CFGMGR32_ // this is it: nothing is imported
#include <windows.h>
#include <initguid.h>
#include <cfgmgr32.h>
#include <devpropdef.h>
#include <devpkey.h>
#include <ioevent.h>
#include <stddef.h>
#include <wchar.h>

DEFINE_GUID(usbDevice, 0xa5dcbf10, 0x6530, 0x11d2, 0x90, 0x1f, 0x00, 0xc0, 0x4f, 0xb9, 0x51, 0xed);
DEFINE_GUID(volume, 0x53f5630d, 0xb6bf, 0x11d0, 0x94, 0xf2, 0x00, 0xa0, 0xc9, 0x1e, 0xfb, 0x8b);

#define STICK L"\\\\?\\USB#VID_0951&PID_1666#60A44C413FAEE280#{a5dcbf10-6530-11d2-901f-00c04fb951ed}"
#define RECEIVER L"\\\\?\\usb#vid_046d&pid_c52b#6&2d7f6a2&0&4#{a5dcbf10-6530-11d2-901f-00c04fb951ed}"
#define VOLUME L"\\\\?\\STORAGE#Volume#1#{53f5630d-b6bf-11d0-94f2-00a0c91efb8b}"

// The devices. Lists of texts end with an empty one.
static const struct {
	int parent;
	const wchar_t *id, *compatible, *hardware, *location, *name;
} devices[] = {
	{-1, L"HTREE\\ROOT\\0"},
	{0, L"USB\\ROOT_HUB30\\4&1&0&0"},
	{1, L"USB\\VID_0951&PID_1666\\60A44C413FAEE280", L"USB\\Class_08&SubClass_06&Prot_50\0USB\\Class_08\0", NULL,
	 L"ACPI(_SB_)#ACPI(PCI0)\0PCIROOT(0)#PCI(1400)#USBROOT(0)#USB(4)\0", L"DataTraveler 3.0"},
	{1, L"USB\\VID_046D&PID_C52B\\6&2D7F6A2&0&4", L"USB\\DevClass_00&SubClass_00&Prot_00\0USB\\COMPOSITE\0", NULL,
	 L"PCIROOT(0)#PCI(1400)#USBROOT(0)#USB(1)\0", L"USB Receiver"},
	{3, L"USB\\VID_046D&PID_C52B&MI_00\\7&1&0&0000", L"USB\\Class_03&SubClass_00&Prot_00\0"},
	{3, L"USB\\VID_046D&PID_C52B&MI_01\\7&1&0&0001", L"USB\\Class_03&SubClass_01&Prot_02\0"},
	{4, L"HID\\VID_046D&PID_C52B&MI_00\\8&1&0&0000", NULL, L"HID\\VID_046D&UP:0001_U:0006\0HID_DEVICE_UP:0001_U:0006\0HID_DEVICE\0"},
};
enum { count = sizeof devices / sizeof *devices, stick = 2, base = 100 };

static volatile LONG plugged;

static struct registration {
	CM_NOTIFY_FILTER filter;
	void *context;
	PCM_NOTIFY_CALLBACK callback;
	CRITICAL_SECTION busy; // held during a call, so that who unregisters waits for it
	int over;
} registrations[64];
static volatile LONG registered;

static int tell(struct registration *r, CM_NOTIFY_ACTION action, const wchar_t *path, const GUID *custom) {
	char buf[1024];
	memset(buf, 0xcc, sizeof buf);
	CM_NOTIFY_EVENT_DATA *d = (void *)buf;
	DWORD size = sizeof *d;
	d->FilterType = r->filter.FilterType;
	d->Reserved = 0;
	if (path) {
		d->u.DeviceInterface.ClassGuid = r->filter.u.DeviceInterface.ClassGuid;
		wcscpy(d->u.DeviceInterface.SymbolicLink, path);
		size = offsetof(CM_NOTIFY_EVENT_DATA, u.DeviceInterface.SymbolicLink) + sizeof(wchar_t) * (wcslen(path) + 1);
	}
	if (custom) {
		d->u.DeviceHandle.EventGuid = *custom;
		d->u.DeviceHandle.NameOffset = -1;
		d->u.DeviceHandle.DataSize = 0;
	}
	EnterCriticalSection(&r->busy);
	int over = r->over;
	if (!over) r->callback((HCMNOTIFICATION)r, r->context, action, d, size);
	LeaveCriticalSection(&r->busy);
	return !over;
}

static DWORD WINAPI play(void *p) {
	struct registration *r = p;
	const GUID *class = &r->filter.u.DeviceInterface.ClassGuid;
	if (r->filter.FilterType == CM_NOTIFY_FILTER_TYPE_DEVICEHANDLE) {
		Sleep(300);
		tell(r, CM_NOTIFY_ACTION_DEVICEQUERYREMOVE, NULL, NULL);
		Sleep(200);
		tell(r, CM_NOTIFY_ACTION_DEVICEQUERYREMOVEFAILED, NULL, NULL);
		Sleep(200);
		tell(r, CM_NOTIFY_ACTION_DEVICECUSTOMEVENT, NULL, &GUID_IO_VOLUME_LOCK);
		Sleep(200);
		tell(r, CM_NOTIFY_ACTION_DEVICECUSTOMEVENT, NULL, &GUID_IO_VOLUME_UNLOCK);
	} else if (IsEqualGUID(class, &usbDevice)) {
		WaitForSingleObject(CreateEvent(NULL, FALSE, FALSE, L"stick comes"), INFINITE);
		plugged = 1;
		tell(r, CM_NOTIFY_ACTION_DEVICEINTERFACEARRIVAL, STICK, NULL);
		WaitForSingleObject(CreateEvent(NULL, FALSE, FALSE, L"stick goes"), INFINITE);
		plugged = 0;
		tell(r, CM_NOTIFY_ACTION_DEVICEINTERFACEREMOVAL, STICK, NULL);
	} else if (IsEqualGUID(class, &volume)) {
		do Sleep(300);
		while (tell(r, CM_NOTIFY_ACTION_DEVICEINTERFACEARRIVAL, VOLUME, NULL));
	}
	return 0;
}

CONFIGRET WINAPI CM_Register_Notification(PCM_NOTIFY_FILTER filter, PVOID context, PCM_NOTIFY_CALLBACK callback, PHCMNOTIFICATION handle) {
	DWORD flags;
	LONG n = InterlockedIncrement(&registered) - 1;
	if (filter->cbSize != sizeof *filter || filter->Flags || filter->Reserved || n >= 64) return CR_INVALID_DATA;
	if (filter->FilterType == CM_NOTIFY_FILTER_TYPE_DEVICEHANDLE && !GetHandleInformation(filter->u.DeviceHandle.hTarget, &flags)) return CR_INVALID_DATA;
	struct registration *r = &registrations[n];
	r->filter = *filter;
	r->context = context;
	r->callback = callback;
	InitializeCriticalSection(&r->busy);
	*handle = (HCMNOTIFICATION)r;
	CloseHandle(CreateThread(NULL, 0, play, r, 0, NULL));
	return CR_SUCCESS;
}

CONFIGRET WINAPI CM_Unregister_Notification(HCMNOTIFICATION handle) {
	struct registration *r = (void *)handle;
	EnterCriticalSection(&r->busy);
	r->over = 1;
	LeaveCriticalSection(&r->busy);
	return CR_SUCCESS;
}

static ULONG list(const GUID *class, wchar_t *to) {
	wchar_t *p = to;
	if (IsEqualGUID(class, &usbDevice)) {
		if (plugged) p = wcscpy(p, STICK) + wcslen(STICK) + 1;
		p = wcscpy(p, RECEIVER) + wcslen(RECEIVER) + 1;
	}
	*p++ = 0;
	return p - to;
}

CONFIGRET WINAPI CM_Get_Device_Interface_List_SizeW(PULONG size, LPGUID class, DEVINSTID_W id, ULONG flags) {
	wchar_t buf[1024];
	*size = list(class, buf);
	return CR_SUCCESS;
}

CONFIGRET WINAPI CM_Get_Device_Interface_ListW(LPGUID class, DEVINSTID_W id, PWCHAR to, ULONG size, ULONG flags) {
	wchar_t buf[1024];
	ULONG n = list(class, buf);
	if (n > size) return CR_BUFFER_SMALL;
	memcpy(to, buf, sizeof(wchar_t) * n);
	return CR_SUCCESS;
}

CONFIGRET WINAPI CM_Locate_DevNodeW(PDEVINST node, DEVINSTID_W id, ULONG flags) {
	for (int i = 0; i < count; i++)
		if (!_wcsicmp(devices[i].id, id) && (i != stick || plugged)) {
			*node = base + i;
			return CR_SUCCESS;
		}
	return CR_NO_SUCH_DEVNODE;
}

static int there(DEVINST node) { return node >= base && node < base + count; }

CONFIGRET WINAPI CM_Get_Parent(PDEVINST to, DEVINST node, ULONG flags) {
	if (!there(node) || devices[node - base].parent < 0) return CR_NO_SUCH_DEVNODE;
	*to = base + devices[node - base].parent;
	return CR_SUCCESS;
}

static CONFIGRET next(PDEVINST to, int parent, int from) {
	for (int i = from; i < count; i++)
		if (devices[i].parent == parent) {
			*to = base + i;
			return CR_SUCCESS;
		}
	return CR_NO_SUCH_DEVNODE;
}

CONFIGRET WINAPI CM_Get_Child(PDEVINST to, DEVINST node, ULONG flags) { return there(node) ? next(to, node - base, 0) : CR_INVALID_DEVNODE; }

CONFIGRET WINAPI CM_Get_Sibling(PDEVINST to, DEVINST node, ULONG flags) {
	return there(node) ? next(to, devices[node - base].parent, node - base + 1) : CR_INVALID_DEVNODE;
}

CONFIGRET WINAPI CM_Get_Device_IDW(DEVINST node, PWCHAR to, ULONG size, ULONG flags) {
	if (!there(node)) return CR_INVALID_DEVNODE;
	if (wcslen(devices[node - base].id) >= size) return CR_BUFFER_SMALL;
	wcscpy(to, devices[node - base].id);
	return CR_SUCCESS;
}

static ULONG bytes(const wchar_t *texts, int many) {
	const wchar_t *p = texts;
	do p += wcslen(p) + 1;
	while (many && *p);
	return sizeof(wchar_t) * (p - texts + many);
}

CONFIGRET WINAPI CM_Get_DevNode_PropertyW(DEVINST node, const DEVPROPKEY *key, DEVPROPTYPE *type, PBYTE to, PULONG size, ULONG flags) {
	if (!there(node)) return CR_INVALID_DEVNODE;
	const void *value = NULL;
	ULONG n = 0;
	UINT32 port = 4;
#define IS(k) (IsEqualGUID(&key->fmtid, &k.fmtid) && key->pid == k.pid)
#define TEXTS(k, x, many)                                                  \
	if (IS(k) && devices[node - base].x) {                             \
		*type = many ? DEVPROP_TYPE_STRING_LIST : DEVPROP_TYPE_STRING; \
		value = devices[node - base].x;                            \
		n = bytes(value, many);                                    \
	}
	TEXTS(DEVPKEY_Device_CompatibleIds, compatible, 1)
	TEXTS(DEVPKEY_Device_HardwareIds, hardware, 1)
	TEXTS(DEVPKEY_Device_LocationPaths, location, 1)
	TEXTS(DEVPKEY_Device_BusReportedDeviceDesc, name, 0)
	if (IS(DEVPKEY_Device_Manufacturer)) {
		*type = DEVPROP_TYPE_STRING;
		value = L"(Standard USB Host Controller)";
		n = bytes(value, 0);
	}
	if (IS(DEVPKEY_Device_Address)) {
		*type = DEVPROP_TYPE_UINT32;
		value = &port;
		n = sizeof port;
	}
	if (!value) return CR_NO_SUCH_VALUE;
	if (n > *size) {
		*size = n;
		return CR_BUFFER_SMALL;
	}
	memcpy(to, value, n);
	*size = n;
	return CR_SUCCESS;
}
