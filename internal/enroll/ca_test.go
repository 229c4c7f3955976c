package enroll

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

func openCA(t *testing.T, dir string) *CA {
	t.Helper()
	ca, err := OpenCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t *testing.T, ca *CA, agent string, expires time.Time) []*x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := ca.IssueClient(&key.PublicKey, agent, NewSerial(), expires)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := parseChain(text)
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

func TestTheAuthorityIsTheSameAfterARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	a := openCA(t, dir)
	chain := issue(t, a, "agent-1", time.Now().Add(ClientLife))
	b := openCA(t, dir)
	if a.Pin() != b.Pin() || a.RootPEM() != b.RootPEM() {
		t.Error("another root after a restart")
	}
	id, serial, err := b.VerifyClient(chain, time.Now())
	if err != nil || id != "agent-1" || serial != chain[0].SerialNumber.Text(16) {
		t.Errorf("got %s, %s, %v", id, serial, err)
	}
	if runtime.GOOS != "windows" {
		for _, f := range []string{"root.key", "issuing.key"} {
			st, err := os.Stat(filepath.Join(dir, f))
			if err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("%s: mode %v (%v), want 600", f, st.Mode(), err)
			}
		}
	}
}

// A crash between any two writes leaves files that the next start can go on with.
func TestACrashWhileTheAuthorityIsMadeIsRepaired(t *testing.T) {
	for _, lost := range [][]string{
		{"root.pem", "issuing.key", "issuing.pem"}, {"issuing.key", "issuing.pem"}, {"issuing.pem"}, {"issuing.key"},
	} {
		dir := filepath.Join(t.TempDir(), "ca")
		pin := openCA(t, dir).Pin()
		for _, f := range lost {
			if err := os.Remove(filepath.Join(dir, f)); err != nil {
				t.Fatal(err)
			}
		}
		ca := openCA(t, dir)
		if ca.Pin() != pin {
			t.Errorf("without %v: the pin is another one", lost)
		}
		if _, _, err := ca.VerifyClient(issue(t, ca, "a", time.Now().Add(time.Hour)), time.Now()); err != nil {
			t.Errorf("without %v: %v", lost, err)
		}
	}
}

func TestTheKeyOfTheRootMayBeKeptElsewhere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	openCA(t, dir)
	if err := os.Remove(filepath.Join(dir, "root.key")); err != nil {
		t.Fatal(err)
	}
	ca := openCA(t, dir)
	issue(t, ca, "a", time.Now().Add(time.Hour))
	late := ca.issuing.NotAfter.Add(-serverLife * 2 / 3)
	if c, err := ca.issueServer([]string{"localhost"}, late); err != nil || !c.Leaf.NotAfter.Equal(ca.issuing.NotAfter) {
		t.Errorf("a server certificate %v before its issuer ends (%v): ends at %v, want with it", serverLife*2/3, err, c.Leaf.NotAfter)
	}
	if _, _, err := ca.issuer(time.Now().Add(issuingLife)); err == nil {
		t.Error("an issuing certificate that has ended was used on")
	}
}

func TestTheIssuingCertificateIsRenewedInTime(t *testing.T) {
	ca := openCA(t, filepath.Join(t.TempDir(), "ca"))
	old := issue(t, ca, "a", time.Now().Add(ClientLife))
	before, _, err := ca.issuer(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	after, _, err := ca.issuer(time.Now().Add(issuingLife - issuingSpare + time.Hour))
	if err != nil || after.Equal(before) {
		t.Errorf("it was not renewed (%v)", err)
	}
	if _, _, err := ca.VerifyClient(old, time.Now()); err != nil {
		t.Errorf("what the older one has signed: %v", err)
	}
}

func TestClientsThatAreNotAccepted(t *testing.T) {
	ca, other := openCA(t, filepath.Join(t.TempDir(), "ca")), openCA(t, filepath.Join(t.TempDir(), "ca"))
	now := time.Now()
	server, err := ca.issueServer([]string{"localhost"}, now)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		chain []*x509.Certificate
		at    time.Time
		want  error
	}{
		{"none", nil, now, ErrNoCertificate},
		{"of another authority", issue(t, other, "a", now.Add(time.Hour)), now, ErrNotOurs},
		{"that has ended", issue(t, ca, "a", now.Add(time.Hour)), now.Add(2 * time.Hour), ErrExpired},
		{"the console's own", []*x509.Certificate{server.Leaf}, now, ErrNotOurs},
		{"the issuing one", []*x509.Certificate{ca.issuing}, now, ErrNotOurs},
		{"of another authority with ours appended", append(issue(t, other, "a", now.Add(time.Hour)), ca.issuing, ca.root), now, ErrNotOurs},
	}
	for _, tt := range tests {
		if id, _, err := ca.VerifyClient(tt.chain, tt.at); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %q, %v, want %v", tt.name, id, err, tt.want)
		}
	}
}

func TestRequestsForCertificates(t *testing.T) {
	key, _, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	good, err := newCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseCSR(good); err != nil || !got.Equal(key.Public()) {
		t.Errorf("got %v, %v", got, err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(good))
	block.Bytes[len(block.Bytes)-1] ^= 1
	for name, csr := range map[string]string{
		"nothing": "", "text": "hello", "two": good + good, "RSA": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})),
		"a broken signature": string(pem.EncodeToMemory(block)), "a certificate": strings.ReplaceAll(good, "CERTIFICATE REQUEST", "CERTIFICATE"),
	} {
		if _, err := ParseCSR(csr); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
	der[len(der)-1] ^= 1
	if _, err := ParseCSR(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))); err == nil || !strings.Contains(err.Error(), "P-256") {
		t.Errorf("RSA with a broken signature: got %v, want it refused for its key, unverified", err)
	}
}

func FuzzParseCSR(f *testing.F) {
	key, _, err := newKey()
	if err != nil {
		f.Fatal(err)
	}
	csr, err := newCSR(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(csr)
	f.Fuzz(func(t *testing.T, s string) {
		if k, err := ParseCSR(s); err == nil && k == nil {
			t.Error("no key and no error")
		}
	})
}

func TestDurationsInWords(t *testing.T) {
	for _, tt := range []struct {
		d      time.Duration
		ja, en string
	}{
		{24 * time.Hour, "1日", "1 day"}, {-49 * time.Hour, "2日", "2 days"}, {30 * time.Hour, "30時間", "30 hours"},
		{11 * time.Minute, "11分", "11 minutes"}, {61 * time.Minute, "1時間", "1 hour"}, {5 * time.Second, "5秒", "5 seconds"}, {0, "0秒", "0 seconds"},
	} {
		if ja, en := duration(tt.d, "ja"), duration(tt.d, "en"); ja != tt.ja || en != tt.en {
			t.Errorf("%s: got %s, %s, want %s, %s", tt.d, ja, en, tt.ja, tt.en)
		}
	}
}

// An administrator's command line must not lock out the service, which runs as
// another user.
func TestWhatRootWritesBelongsToTheOwnerOfTheFolder(t *testing.T) {
	if runtime.GOOS == "windows" || os.Geteuid() != 0 {
		t.Skip("needs root, to act for another user")
	}
	dir := filepath.Join(t.TempDir(), "ca")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	openCA(t, dir)
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 4 {
		t.Fatalf("got %v (%v), want four files", files, err)
	}
	for _, f := range files {
		st, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if uid := reflect.ValueOf(st.Sys()).Elem().FieldByName("Uid").Uint(); uid != 65534 {
			t.Errorf("%s belongs to %d", f.Name(), uid)
		}
	}
}
