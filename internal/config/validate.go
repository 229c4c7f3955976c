package config

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"
)

// validate tells what only makes sense together.
func (a *Agent) validate() Problems {
	var ps Problems
	add := func(at, code, ja, en string) { ps = append(ps, a.problem(at, code, ja, en)) }

	if a.WorkHours.From >= a.WorkHours.To {
		add("work_hours.to", CodeTogether, "終業時刻が始業時刻 "+a.WorkHours.From.String()+" より後ではありません",
			"work ends no later than it begins ("+a.WorkHours.From.String()+")")
	}
	labels, devices := map[string]int{}, map[LostDevice]int{}
	for i, p := range a.Protected {
		at := fmt.Sprintf("protected[%d]", i)
		if len(p.Paths)+len(p.Shares) == 0 && !a.given(at+".paths") && !a.given(at+".shares") {
			add(at, CodeMissing, "paths か shares のどちらかが必要です", "paths or shares is missing")
		}
		if first, twice := labels[p.Label]; twice && p.Label != "" {
			add(at+".label", CodeTwice, fmt.Sprintf("同じ名前が protected[%d] にあります", first), fmt.Sprintf("protected[%d] has the same label", first))
		} else {
			labels[p.Label] = i
		}
	}
	for i, s := range a.Shares {
		if s.Department == "" && s.Audience == "" && !a.given(fmt.Sprintf("shares[%d].audience", i)) {
			add(fmt.Sprintf("shares[%d]", i), CodeMissing, "department か audience のどちらかが必要です", "department or audience is missing")
		}
	}
	for i, d := range a.Devices.Approved {
		a.validateDevice("approved", i, LostDevice{Vendor: d.Vendor, Product: d.Product, Serial: d.Serial}, devices, add)
	}
	clear(devices)
	for i, d := range a.Devices.Lost {
		a.validateDevice("lost", i, LostDevice{Vendor: d.Vendor, Product: d.Product, Serial: d.Serial}, devices, add)
	}

	ids, accounts := map[string]int{}, map[string]int{}
	for i, p := range a.People {
		at := fmt.Sprintf("people[%d]", i)
		if first, twice := ids[p.ID]; twice && p.ID != "" {
			add(at+".id", CodeTwice, fmt.Sprintf("同じ番号が people[%d] にあります", first), fmt.Sprintf("people[%d] has the same id", first))
		} else {
			ids[p.ID] = i
		}
		for j, acc := range p.Accounts {
			key := strings.ToLower(acc)
			if first, twice := accounts[key]; twice && acc != "" {
				add(fmt.Sprintf("%s.accounts[%d]", at, j), CodeTwice, fmt.Sprintf("同じアカウントが people[%d] にあります", first),
					fmt.Sprintf("people[%d] has the same account", first))
			} else {
				accounts[key] = i
			}
		}
	}
	a.validateRules(add)
	return ps
}

// validateRules checks what rules are told. Whether the rules, thresholds and
// fields exist, whoever compiles the rules knows.
func (a *Agent) validateRules(add func(at, code, ja, en string)) {
	for i, t := range a.Rules.ThresholdsFor {
		at := fmt.Sprintf("rules.thresholds_for[%d]", i)
		switch {
		case t.Department == "" && t.Tag == "" && t.List == "" && !a.given(at+".tag") && !a.given(at+".list"):
			add(at, CodeMissing, "department、tag、list のどれかが必要です（全員なら rules.thresholds に書きます）",
				"department, tag or list is missing (for everybody, use rules.thresholds)")
		case len(t.Thresholds) == 0:
			add(at, CodeMissing, `キー "thresholds" が必要です`, `key "thresholds" is missing`)
		}
	}
	for i, e := range a.Rules.Exceptions {
		at := fmt.Sprintf("rules.exceptions[%d]", i)
		if len(e.Rules) == 0 {
			add(at, CodeMissing, "rules に 1 つ以上のルールが必要です", "rules names no rule")
		}
		if len(e.When) == 0 && !a.given(at+".when") {
			add(at, CodeMissing, `キー "when" が必要です（このままではすべてのイベントに合います）`, `key "when" is missing (as it stands, every event fits)`)
		}
		for _, field := range slices.Sorted(maps.Keys(e.When)) {
			if len(e.When[field]) == 0 {
				add(at+".when."+field, CodeMissing, "値がありません", "no value is given")
			}
		}
		if e.Reason == "" && !a.given(at+".reason") {
			add(at, CodeMissing, `キー "reason" が必要です`, `key "reason" is missing`)
		}
	}
}

// validateDevice checks what the two lists of devices have in common; seen maps a
// device to its place in the list.
func (a *Agent) validateDevice(list string, i int, d LostDevice, seen map[LostDevice]int, add func(at, code, ja, en string)) {
	at := fmt.Sprintf("devices.%s[%d]", list, i)
	if d.Vendor == "" && d.Serial == "" && !a.given(at+".vendor") {
		add(at, CodeMissing, "vendor か serial が必要です（このままではすべての機器に合います）", "vendor or serial is missing (as it stands, every device fits)")
		return
	}
	if d.Product != "" && d.Vendor == "" && !a.given(at+".vendor") {
		add(at, CodeMissing, "product には vendor も必要です", "product needs vendor too")
	}
	if first, twice := seen[d]; twice {
		add(at, CodeTwice, fmt.Sprintf("同じ機器が devices.%s[%d] にあります", list, first), fmt.Sprintf("devices.%s[%d] is the same device", list, first))
		return
	}
	seen[d] = i
}

func (c *Console) validate() Problems {
	var ps Problems
	add := func(at, code, ja, en string) { ps = append(ps, c.problem(at, code, ja, en)) }

	tls := c.Web.TLS
	switch {
	case tls.CertFile != "" && tls.KeyFile == "":
		add("web.tls", CodeMissing, "key_file も必要です", "key_file is missing")
	case tls.KeyFile != "" && tls.CertFile == "":
		add("web.tls", CodeMissing, "cert_file も必要です", "cert_file is missing")
	case tls.CertFile == "" && !loopback(c.Listen.Web):
		add("listen.web", CodeTogether, "この機械の外から使うには証明書（web.tls）が必要です。なければ 127.0.0.1 にしてください",
			"reachable from outside without web.tls; set a certificate or listen on 127.0.0.1")
	}
	if c.Listen.Metrics != "" && !loopback(c.Listen.Metrics) {
		add("listen.metrics", CodeTogether, "計測値は認証なしなので、127.0.0.1 だけで待ち受けられます", "metrics need no sign-in, so they stay on 127.0.0.1")
	}
	all := []string{c.Listen.Agents, c.Listen.Web, c.Listen.Metrics}
	for i, name := range []string{"agents", "web", "metrics"} {
		if all[i] == "" || strings.HasSuffix(all[i], ":0") {
			continue
		}
		if first := slices.Index(all, all[i]); first < i {
			add("listen."+name, CodeTwice, "同じ住所がほかでも使われています", "the same address is used twice")
		}
	}
	if c.Session.Absolute < c.Session.Idle {
		add("session.absolute", CodeTogether, "session.idle（"+FormatDuration(c.Session.Idle)+"）より短くできません",
			"shorter than session.idle ("+FormatDuration(c.Session.Idle)+")")
	}
	return ps
}

// given reports whether the file gives a value for the path, a wrong one included.
func (s *source) given(path string) bool { _, ok := s.places[path]; return ok }

// loopback reports whether an address to listen on is reachable from this
// machine only. What cannot be read was told already.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Location is the time zone of the work hours. It is Asia/Tokyo's fixed offset
// if the zone cannot be loaded, which a loaded file rules out.
func (w *WorkHours) Location() *time.Location {
	if loc, err := time.LoadLocation(w.Timezone); err == nil && w.Timezone != "" {
		return loc
	}
	return time.FixedZone("JST", 9*60*60)
}
