package procwatch

import (
	"encoding/hex"
	"errors"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

// maxSigned is how much of a file is read to check its signature: all of it. Larger
// ones are installers, mostly.
const maxSigned = 512 << 20

var (
	wintrust               = windows.NewLazySystemDLL("wintrust.dll")
	provDataFromState      = wintrust.NewProc("WTHelperProvDataFromStateData")
	provSignerFromChain    = wintrust.NewProc("WTHelperGetProvSignerFromChain")
	catAcquireContext      = wintrust.NewProc("CryptCATAdminAcquireContext2")
	catReleaseContext      = wintrust.NewProc("CryptCATAdminReleaseContext")
	catCalcHash            = wintrust.NewProc("CryptCATAdminCalcHashFromFileHandle2")
	catEnumFromHash        = wintrust.NewProc("CryptCATAdminEnumCatalogFromHash")
	catReleaseCatalog      = wintrust.NewProc("CryptCATAdminReleaseCatalogContext")
	catCatalogInfo         = wintrust.NewProc("CryptCATCatalogInfoFromContext")
	errNotTrustedByCatalog = errors.New("no catalogue has it")
)

// certNameSimpleDisplay is CERT_NAME_SIMPLE_DISPLAY_TYPE of wincrypt.h: the CN, else
// another name that is there.
const certNameSimpleDisplay = 4

// catalogInfo is WINTRUST_CATALOG_INFO of wintrust.h.
type catalogInfo struct {
	size           uint32
	version        uint32
	catalogFile    *uint16
	memberTag      *uint16
	memberFile     *uint16
	member         windows.Handle
	hash           *byte
	hashSize       uint32
	catalogContext unsafe.Pointer
	admin          uintptr
}

// catalogFile is CATALOG_INFO of mscat.h.
type catalogFile struct {
	size uint32
	file [windows.MAX_PATH]uint16
}

// providerSigner is the beginning of CRYPT_PROVIDER_SGNR, providerCert that of
// CRYPT_PROVIDER_CERT of wintrust.h.
type providerSigner struct {
	_     uint32           // cbStruct
	_     windows.Filetime // sftVerifyAsOf
	certs uint32
	chain *providerCert
}

type providerCert struct {
	_    uint32 // cbStruct
	cert *windows.CertContext
}

// Signature checks the Authenticode signature of a program as that of a process is:
// its status as in events ("trusted", "unsigned" ...) and, of a trusted one, who has
// signed. It reads the whole file.
func Signature(path string) (status, signer string) {
	s := verifySignature(path)
	return s.status, s.signer
}

// verifySignature checks the Authenticode signature of a file, its own or that of a
// catalogue of Windows', with what this PC knows: nothing is fetched, and whether a
// certificate was revoked is not asked.
func verifySignature(path string) signature {
	notChecked := signature{status: "not-checked", checked: true}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return notChecked
	}
	h, err := windows.CreateFile(name, windows.GENERIC_READ, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE,
		nil, windows.OPEN_EXISTING, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		notChecked.checked = false // it may be free the next time
		return notChecked
	}
	defer windows.CloseHandle(h)
	var i windows.ByHandleFileInformation
	if windows.GetFileInformationByHandle(h, &i) != nil || i.FileSizeHigh != 0 || i.FileSizeLow > maxSigned {
		return notChecked
	}
	info := windows.WinTrustFileInfo{Size: uint32(unsafe.Sizeof(windows.WinTrustFileInfo{})), FilePath: name, File: h}
	s := verify(windows.WTD_CHOICE_FILE, unsafe.Pointer(&info))
	if s.exists {
		return s
	}
	for _, algorithm := range []string{"SHA256", "SHA1"} { // the second: catalogues of before Windows 8
		if by, err := verifyByCatalog(h, name, algorithm); err == nil {
			return by
		}
	}
	return s
}

// verify has Windows check what is chosen by info. Windows keeps where both lie from
// the first call to the second, so that they must not move with our stack.
func verify(choice uint32, info unsafe.Pointer) signature {
	data := windows.WinTrustData{
		Size:                            uint32(unsafe.Sizeof(windows.WinTrustData{})),
		UIChoice:                        windows.WTD_UI_NONE,
		RevocationChecks:                windows.WTD_REVOKE_NONE,
		UnionChoice:                     choice,
		FileOrCatalogOrBlobOrSgnrOrCert: info,
		StateAction:                     windows.WTD_STATEACTION_VERIFY,
		ProvFlags:                       windows.WTD_REVOCATION_CHECK_NONE | windows.WTD_CACHE_ONLY_URL_RETRIEVAL | windows.WTD_DISABLE_MD2_MD4,
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&data)
	pin.Pin(info)
	err := windows.WinVerifyTrustEx(windows.InvalidHWND, &windows.WINTRUST_ACTION_GENERIC_VERIFY_V2, &data)
	var code syscall.Errno
	if err != nil && !errors.As(err, &code) {
		code = syscall.Errno(windows.TRUST_E_FAIL)
	}
	s := trustOf(uint32(code))
	if s.trusted {
		s.signer = signerOf(data.StateData)
	}
	data.StateAction = windows.WTD_STATEACTION_CLOSE
	_ = windows.WinVerifyTrustEx(windows.InvalidHWND, &windows.WINTRUST_ACTION_GENERIC_VERIFY_V2, &data)
	return s
}

// signerOf is the name of who signed what was just verified.
func signerOf(state windows.Handle) string {
	if state == 0 || provDataFromState.Find() != nil || provSignerFromChain.Find() != nil {
		return ""
	}
	data, _, _ := provDataFromState.Call(uintptr(state))
	if data == 0 {
		return ""
	}
	address, _, _ := provSignerFromChain.Call(data, 0, 0, 0)
	signer := *(**providerSigner)(unsafe.Pointer(&address)) // Windows' memory, until the state is closed
	if signer == nil || signer.certs == 0 || signer.chain == nil || signer.chain.cert == nil {
		return ""
	}
	var buf [512]uint16
	n := windows.CertGetNameString(signer.chain.cert, certNameSimpleDisplay, 0, nil, &buf[0], uint32(len(buf)))
	if n <= 1 {
		return ""
	}
	return cut(windows.UTF16ToString(buf[:]), maxVersionText)
}

// verifyByCatalog checks a file by the catalogue of Windows' that has its hash: most
// of its own programs are signed so.
func verifyByCatalog(h windows.Handle, name *uint16, algorithm string) (signature, error) {
	for _, p := range []*windows.LazyProc{catAcquireContext, catReleaseContext, catCalcHash, catEnumFromHash, catReleaseCatalog, catCatalogInfo} {
		if err := p.Find(); err != nil {
			return signature{}, err
		}
	}
	hashName, err := windows.UTF16PtrFromString(algorithm)
	if err != nil {
		return signature{}, err
	}
	var admin uintptr
	if ok, _, err := catAcquireContext.Call(uintptr(unsafe.Pointer(&admin)), 0, uintptr(unsafe.Pointer(hashName)), 0, 0); ok == 0 || admin == 0 {
		return signature{}, err
	}
	defer catReleaseContext.Call(admin, 0)
	var hash [64]byte
	n := uint32(len(hash))
	if ok, _, err := catCalcHash.Call(admin, uintptr(h), uintptr(unsafe.Pointer(&n)), uintptr(unsafe.Pointer(&hash[0])), 0); ok == 0 || n == 0 || int(n) > len(hash) {
		return signature{}, err
	}
	catalog, _, _ := catEnumFromHash.Call(admin, uintptr(unsafe.Pointer(&hash[0])), uintptr(n), 0, 0)
	if catalog == 0 {
		return signature{}, errNotTrustedByCatalog
	}
	defer catReleaseCatalog.Call(admin, catalog, 0)
	file := catalogFile{size: uint32(unsafe.Sizeof(catalogFile{}))}
	if ok, _, err := catCatalogInfo.Call(catalog, uintptr(unsafe.Pointer(&file)), 0); ok == 0 {
		return signature{}, err
	}
	tag, err := windows.UTF16PtrFromString(strings.ToUpper(hex.EncodeToString(hash[:n])))
	if err != nil {
		return signature{}, err
	}
	info := catalogInfo{
		size: uint32(unsafe.Sizeof(catalogInfo{})), catalogFile: &file.file[0], memberTag: tag, memberFile: name,
		member: h, hash: &hash[0], hashSize: n, admin: admin,
	}
	return verify(windows.WTD_CHOICE_CATALOG, unsafe.Pointer(&info)), nil
}
