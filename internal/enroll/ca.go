package enroll

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// CA is the console's certificate authority. Its folder holds root.pem,
// root.key, issuing.pem and issuing.key. Once agents are enrolled, root.key is
// needed only every other year, to make a new issuing certificate: it may be
// kept elsewhere. Safe for concurrent use.
type CA struct {
	dir  string
	root *x509.Certificate

	mu      sync.Mutex // guards all below
	issuing *x509.Certificate
	key     crypto.Signer // of issuing
}

// OpenCA opens the authority in a folder, and makes one where there is none.
func OpenCA(dir string) (*CA, error) {
	ca := &CA{dir: dir}
	if err := ca.open(time.Now()); err != nil {
		return nil, fmt.Errorf("certificate authority in %s: %w", dir, err)
	}
	return ca, nil
}

func (ca *CA) open(now time.Time) error {
	if err := PrivateDir(ca.dir); err != nil {
		return err
	}
	root, err := readCert(ca.file("root.pem"))
	if errors.Is(err, fs.ErrNotExist) {
		// A key without certificate is what a crash between the two writes leaves.
		key, err2 := readKey(ca.file("root.key"))
		if errors.Is(err2, fs.ErrNotExist) {
			key, err2 = writeNewKey(ca.file("root.key"))
		}
		if err2 != nil {
			return err2
		}
		c := template("Sekisho root", now, rootLife)
		c.IsCA, c.BasicConstraintsValid, c.MaxPathLen = true, true, 1
		c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		if root, err = sign(c, c, key.Public(), key); err == nil {
			err = writeCert(ca.file("root.pem"), root)
		}
	}
	if err != nil {
		return err
	}
	if !root.IsCA || root.CheckSignatureFrom(root) != nil {
		return errors.New("root.pem is not a root certificate")
	}
	ca.root = root
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.renewIssuing(now)
}

func (ca *CA) file(name string) string { return filepath.Join(ca.dir, name) }

// renewIssuing sees to it that there is an issuing certificate that lives long
// enough. The caller holds mu.
func (ca *CA) renewIssuing(now time.Time) error {
	if ca.issuing == nil {
		cert, err := readCert(ca.file("issuing.pem"))
		key, err2 := readKey(ca.file("issuing.key"))
		if err = errors.Join(err, err2); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// Key and certificate of two renewals are what a crash between the writes leaves.
		if err == nil && samePublicKey(cert.PublicKey, key.Public()) && cert.CheckSignatureFrom(ca.root) == nil {
			ca.issuing, ca.key = cert, key
		}
	}
	if ca.issuing != nil && ca.issuing.NotAfter.Sub(now) > issuingSpare {
		return nil
	}
	rootKey, err := readKey(ca.file("root.key"))
	if err != nil {
		if ca.issuing != nil && ca.issuing.NotAfter.Sub(now) > serverLife/2 {
			return nil // there is time left to bring the key of the root
		}
		return fmt.Errorf("a new issuing certificate is needed: %w", err)
	}
	key, err := writeNewKey(ca.file("issuing.key"))
	if err != nil {
		return err
	}
	c := template("Sekisho issuing", now, issuingLife)
	c.IsCA, c.BasicConstraintsValid, c.MaxPathLenZero = true, true, true
	c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	if c.NotAfter.After(ca.root.NotAfter) {
		c.NotAfter = ca.root.NotAfter
	}
	cert, err := sign(c, ca.root, key.Public(), rootKey)
	if err != nil {
		return err
	}
	if err := writeCert(ca.file("issuing.pem"), cert); err != nil {
		return err
	}
	ca.issuing, ca.key = cert, key
	return nil
}

// issuer is the certificate and key to sign with now.
func (ca *CA) issuer(now time.Time) (*x509.Certificate, crypto.Signer, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if err := ca.renewIssuing(now); err != nil {
		return nil, nil, fmt.Errorf("certificate authority in %s: %w", ca.dir, err)
	}
	return ca.issuing, ca.key, nil
}

// Pin is what tokens carry: the hash of the root's public key.
func (ca *CA) Pin() [32]byte { return PinOf(ca.root) }

// RootPEM is the root's certificate, for agents to trust.
func (ca *CA) RootPEM() string { return certPEM(ca.root.Raw) }

// NewSerial is a serial number for a certificate, 127 random bits in lower-case
// hex.
func NewSerial() string {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] &= 0x7f // serial numbers are positive
	return new(big.Int).SetBytes(b).Text(16)
}

// ParseCSR reads a request for a certificate. Nothing but its public key counts;
// that has to be of P-256.
func ParseCSR(text string) (*ecdsa.PublicKey, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE REQUEST" || strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("csr: want one PEM block CERTIFICATE REQUEST")
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("csr: %w", err)
	}
	// The kind of key first: whoever has no token yet could else let us compute for
	// seconds with an RSA key that fills the request.
	key, ok := r.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("csr: want a key of P-256")
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("csr: %w", err)
	}
	return key, nil
}

// KeyHash is the hash of a public key (SHA-256 of its SPKI).
func KeyHash(key *ecdsa.PublicKey) ([32]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return [32]byte{}, fmt.Errorf("public key: %w", err)
	}
	return PinOf(&x509.Certificate{RawSubjectPublicKeyInfo: der}), nil
}

// IssueClient makes an agent's certificate: PEM, leaf first, then the issuer.
func (ca *CA) IssueClient(key *ecdsa.PublicKey, agentID, serial string, expires time.Time) (string, error) {
	now := time.Now()
	issuing, signer, err := ca.issuer(now)
	if err != nil {
		return "", err
	}
	id, err := agentURL(agentID)
	if err != nil {
		return "", err
	}
	c := template("", now, ClientLife)
	c.Subject, c.URIs, c.NotAfter = pkix.Name{CommonName: agentID}, []*url.URL{id}, expires
	c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if _, ok := c.SerialNumber.SetString(serial, 16); !ok || c.SerialNumber.Sign() <= 0 {
		return "", fmt.Errorf("issue certificate: serial %.40q", serial)
	}
	leaf, err := sign(c, issuing, key, signer)
	if err != nil {
		return "", err
	}
	return certPEM(leaf.Raw) + certPEM(issuing.Raw), nil
}

// The ways in which a client's certificate is not accepted.
var (
	ErrNoCertificate = errors.New("no certificate was shown")
	ErrExpired       = errors.New("the certificate has expired")
	ErrNotOurs       = errors.New("the certificate was not issued here")
)

// VerifyClient checks the chain that a client has shown in TLS (which has proven
// that it has the key) and tells whose it is. Whether its serial is still
// accepted is for the caller to look up. The error wraps one of the above.
func (ca *CA) VerifyClient(chain []*x509.Certificate, now time.Time) (agentID, serial string, err error) {
	if len(chain) == 0 {
		return "", "", ErrNoCertificate
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(ca.root)
	for _, c := range chain[1:min(len(chain), 4)] {
		between.AddCert(c)
	}
	ca.mu.Lock()
	between.AddCert(ca.issuing)
	ca.mu.Unlock()
	leaf := chain[0]
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return agentIDOf(leaf), leaf.SerialNumber.Text(16), fmt.Errorf("%w: valid from %s to %s", ErrExpired,
			leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
	case err != nil:
		return "", "", fmt.Errorf("%w: %v", ErrNotOurs, err)
	}
	if agentID = agentIDOf(leaf); agentID == "" {
		return "", "", fmt.Errorf("%w: it names no agent", ErrNotOurs)
	}
	return agentID, leaf.SerialNumber.Text(16), nil
}

// ServerNames are the names and addresses that a console's certificate holds:
// those of the settings, the host's own name and addresses, and loopback.
func ServerNames(configured []string) []string {
	names := slices.Clone(configured)
	if h, err := os.Hostname(); err == nil {
		names = append(names, h)
	}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
				names = append(names, p.Addr().String())
			}
		}
	}
	names = append(names, "localhost", "127.0.0.1", "::1")
	seen := map[string]bool{}
	return slices.DeleteFunc(names, func(n string) bool {
		dup := n == "" || seen[n]
		seen[n] = true
		return dup
	})
}

// ServerTLS is the TLS of the console's side for agents: TLS 1.3, a certificate
// for names that is made in memory and renewed by itself. Clients may show a
// certificate; it is checked by VerifyClient in the handler, so that one that
// is not accepted gets an answer in words.
func (ca *CA) ServerTLS(names []string) *tls.Config {
	var mu sync.Mutex // guards all below
	var cert *tls.Certificate
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			mu.Lock()
			defer mu.Unlock()
			now := time.Now()
			if cert == nil || cert.Leaf.NotAfter.Sub(now) < serverLife/3 {
				switch c, err := ca.issueServer(names, now); {
				case err == nil:
					cert = c
				case cert == nil || now.After(cert.Leaf.NotAfter):
					return nil, err
				}
			}
			return cert, nil
		},
	}
}

func (ca *CA) issueServer(names []string, now time.Time) (*tls.Certificate, error) {
	issuing, signer, err := ca.issuer(now)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	c := template("Sekisho console", now, serverLife)
	c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, n)
		}
	}
	if c.NotAfter.After(issuing.NotAfter) { // the root's key is elsewhere: no longer than the chain is valid, so that it is renewed in time
		c.NotAfter = issuing.NotAfter
	}
	leaf, err := sign(c, issuing, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	// The root goes along: a PC that enrols knows no more of it than its pin.
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, issuing.Raw, ca.root.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func template(name string, now time.Time, life time.Duration) *x509.Certificate {
	serial, _ := new(big.Int).SetString(NewSerial(), 16)
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name, Organization: []string{"Sekisho"}},
		NotBefore: now.Add(-backdate).UTC().Truncate(time.Second), NotAfter: now.Add(life).UTC().Truncate(time.Second),
	}
}

func sign(c, parent *x509.Certificate, key crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key, signer)
	if err != nil {
		return nil, fmt.Errorf("sign certificate %q: %w", c.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

func samePublicKey(a, b crypto.PublicKey) bool {
	k, ok := a.(*ecdsa.PublicKey)
	return ok && k.Equal(b)
}

func certPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func readCert(file string) (*x509.Certificate, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s: no certificate in it", filepath.Base(file))
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	return c, nil
}

func writeCert(file string, c *x509.Certificate) error {
	return writeFile(file, []byte(certPEM(c.Raw)))
}

func readKey(file string) (crypto.Signer, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%s: no key in it", filepath.Base(file))
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	s, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: not a key of ECDSA", filepath.Base(file))
	}
	return s, nil
}

func writeNewKey(file string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writeFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}
