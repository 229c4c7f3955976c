package enroll

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// The files of an identity's folder.
const (
	identityFile = "identity.json" // everything, so that it changes in one step
	pendingFile  = "enrolling.json"
	maxIdentity  = 1 << 20 // bytes
)

// stored is the identity file.
type stored struct {
	AgentID     string    `json:"agent_id"`
	Department  string    `json:"department,omitempty"`
	Consoles    []string  `json:"consoles"`          // URLs
	CA          string    `json:"ca"`                // PEM of the roots to trust
	Certificate string    `json:"certificate"`       // PEM, leaf first
	Sealing     string    `json:"sealing,omitempty"` // how key is sealed; empty: not
	Key         []byte    `json:"key"`               // PKCS #8
	Enrolled    time.Time `json:"enrolled"`
}

// pending is an enrolment that was begun. Trying again with the same key lets
// the console see that its reply was lost, and spends no further use of the token.
type pending struct {
	TokenID string `json:"token_id"`
	Sealing string `json:"sealing,omitempty"`
	Key     []byte `json:"key"`
}

// Identity is what a PC has become by enrolling. Safe for concurrent use.
type Identity struct {
	dir string
	due chan struct{} // capacity one: see RenewalDue

	mu    sync.Mutex // guards all below
	s     stored
	cert  tls.Certificate
	roots []*x509.Certificate
	timer *time.Timer // fires when renewal is due; nil until somebody asks
}

// File is where the identity of a folder is. It is replaced as a whole.
func File(dir string) string { return filepath.Join(dir, identityFile) }

// Load reads the identity from its folder. If the PC was never enrolled the
// error satisfies errors.Is(err, fs.ErrNotExist), else it is an *Error.
func Load(dir string) (*Identity, error) {
	var s stored
	if err := readJSON(filepath.Join(dir, identityFile), &s); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("identity: %w", err)
		}
		return nil, newError(CodeIdentity, err)
	}
	id := &Identity{dir: dir, due: make(chan struct{}, 1)}
	if err := id.set(s); err != nil {
		return nil, newError(CodeIdentity, fmt.Errorf("%s: %w", filepath.Join(dir, identityFile), err))
	}
	if s.Sealing != sealing {
		// From a version that did not seal, or brought here by hand. Where it cannot be
		// written, who asks has few rights, and the next who does has more.
		if sealed, err := seal(s.Key); err == nil {
			s.Sealing, s.Key = sealing, sealed
			_ = save(dir, s)
		}
	}
	return id, nil
}

func readJSON(file string, v any) error {
	st, err := os.Stat(file)
	if err != nil {
		return err
	}
	if st.Size() > maxIdentity {
		return fmt.Errorf("%s: %d bytes", file, st.Size())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// set takes over what was stored, if its parts fit together.
func (id *Identity) set(s stored) error {
	key, err := unseal(s.Sealing, s.Key)
	if err != nil {
		return err
	}
	k, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	signer, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return errors.New("key: not of ECDSA")
	}
	chain, err := parseChain(s.Certificate)
	if err != nil {
		return err
	}
	if !samePublicKey(chain[0].PublicKey, signer.Public()) {
		return errors.New("the certificate is of another key")
	}
	if agentIDOf(chain[0]) != s.AgentID || s.AgentID == "" {
		return errors.New("the certificate is of another agent")
	}
	roots, err := parseChain(s.CA)
	if err != nil {
		return fmt.Errorf("ca: %w", err)
	}
	cert := tls.Certificate{PrivateKey: signer, Leaf: chain[0]}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	id.s, id.cert, id.roots = s, cert, roots
	if id.timer != nil {
		id.timer.Stop()
		id.timer = nil
	}
	return nil
}

// parseChain reads certificates in PEM, at least one.
func parseChain(text string) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	rest := []byte(text)
	for len(out) < 8 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate: %w", err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("no certificate in it")
	}
	return out, nil
}

// save writes the identity as a whole and takes it over.
func save(dir string, s stored) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, identityFile), append(b, '\n'))
}

// AgentID is the id that the console has given.
func (id *Identity) AgentID() string { id.mu.Lock(); defer id.mu.Unlock(); return id.s.AgentID }

// Department is the one that the token named; may be empty.
func (id *Identity) Department() string { id.mu.Lock(); defer id.mu.Unlock(); return id.s.Department }

// URLs are the console's addresses, "https://host:port".
func (id *Identity) URLs() []string {
	id.mu.Lock()
	defer id.mu.Unlock()
	return slices.Clone(id.s.Consoles)
}

// Certificate is the agent's. The caller must not write to it.
func (id *Identity) Certificate() *x509.Certificate {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.cert.Leaf
}

// Expires is when the certificate ends.
func (id *Identity) Expires() time.Time { return id.Certificate().NotAfter }

// Authorities are the roots by which the console is known. The caller must not
// write to them.
func (id *Identity) Authorities() []*x509.Certificate {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.roots
}

// Fingerprint is the same for two identities if they have the same certificate
// and trust the same roots.
func (id *Identity) Fingerprint() string {
	id.mu.Lock()
	defer id.mu.Unlock()
	h := sha256.New()
	h.Write(id.cert.Leaf.Raw)
	h.Write([]byte(id.s.CA))
	h.Write([]byte(strings.Join(id.s.Consoles, "\n")))
	return hex.EncodeToString(h.Sum(nil))
}

// TLSConfig is TLS 1.3 that trusts the console's roots alone and shows the
// certificate of the moment: a renewal counts from the next connection on. The
// result is the caller's.
func (id *Identity) TLSConfig() *tls.Config {
	pool := x509.NewCertPool()
	for _, c := range id.Authorities() {
		pool.AddCert(c)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			id.mu.Lock()
			defer id.mu.Unlock()
			c := id.cert
			return &c, nil
		},
	}
}

// RenewalDue gets a value when the certificate should be renewed: at two thirds
// of its life, or when RenewSoon says so. Past that time it does so at each call,
// so that a caller whose renewal failed asks again. The channel is always the same.
func (id *Identity) RenewalDue() <-chan struct{} {
	id.mu.Lock()
	defer id.mu.Unlock()
	// From when it was issued; certificates are dated back.
	at := id.cert.Leaf.NotAfter.Add(-ClientLife / 3)
	switch wait := time.Until(at); {
	case wait <= 0:
		id.RenewSoon()
	case id.timer == nil:
		id.timer = time.AfterFunc(wait, id.RenewSoon)
	}
	return id.due
}

// RenewSoon makes RenewalDue give a value.
func (id *Identity) RenewSoon() {
	select {
	case id.due <- struct{}{}:
	default:
	}
}
