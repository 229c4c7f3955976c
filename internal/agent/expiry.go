package agent

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"time"

	"sekisho/internal/event"

	"go.uber.org/zap"
)

// What of the agent's own comes to an end is told as events, which rule HLT-2
// judges: the certificate it shows and the authority by which it knows the
// console. Approvals of devices and tools are told where they are used: package
// enrich.
const (
	// expiryEvery is how often it is looked at; each thing is told once a day.
	expiryEvery = time.Hour
	// certificateLate is when the agent's certificate is told of. It is renewed
	// from ten days before its end: with seven left that has failed for days.
	certificateLate = 7 * 24 * time.Hour
	// authorityLate is when an authority is told of, which nobody renews by itself.
	authorityLate = 31 * 24 * time.Hour
)

// ending is a certificate of the agent's that ends soon.
type ending struct {
	of   string // one of event.Expiry...
	cert *x509.Certificate
}

// endings is what of the agent's own ends soon.
func (a *Agent) endings(now time.Time) (out []ending) {
	id := a.link.current()
	if id == nil {
		return nil
	}
	if c := id.Certificate(); c.NotAfter.Sub(now) < certificateLate {
		out = append(out, ending{event.ExpiryCertificate, c})
	}
	authorities := id.Authorities()
	if file := a.cfg.Load().Console.CA; file != "" { // in their place
		text, err := os.ReadFile(file)
		if err != nil {
			return out // the way to the console tells of it
		}
		authorities = certificates(text)
	}
	// While one is replaced there are two: the last one counts.
	var last *x509.Certificate
	for _, c := range authorities {
		if last == nil || c.NotAfter.After(last.NotAfter) {
			last = c
		}
	}
	if last != nil && last.NotAfter.Sub(now) < authorityLate {
		out = append(out, ending{event.ExpiryAuthority, last})
	}
	return out
}

// certificates reads those of a PEM file that can be read.
func certificates(text []byte) (out []*x509.Certificate) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			out = append(out, c)
		}
	}
	return out
}

// expiries tells what ends soon, each once a day. It belongs to the pipeline.
func (a *Agent) expiries(now time.Time) {
	if now.Sub(a.expiryLook).Abs() < expiryEvery {
		return
	}
	a.expiryLook = now
	zone := a.cfg.Load().WorkHours.Location()
	today := now.In(zone).Format(time.DateOnly)
	for _, x := range a.endings(now) {
		if a.expiryTold[x.of] == today {
			continue
		}
		a.expiryTold[x.of] = today
		e := event.New(event.ExpiryNear, now)
		e.Sensor = "agent"
		e.Context = &event.Context{ExpiryOf: x.of, ExpiryName: x.cert.Subject.CommonName, ExpiryEnds: x.cert.NotAfter.In(zone).Format(time.DateOnly)}
		a.log.Warn("a certificate ends soon", zap.String("of", x.of), zap.String("name", e.Context.ExpiryName), zap.Time("ends", x.cert.NotAfter))
		a.handle(e)
	}
}
