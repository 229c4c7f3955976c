package console

import (
	_ "embed"
	"encoding/json"
	"strings"

	"sekisho/internal/alert"
)

// incidentsJSON are published incidents of Japanese organisations that the rules
// are drawn from: id, who, when, what happened, one sentence each. The ids are
// those of the public blog セキュリティ事件簿.
//
//go:embed incidents.json
var incidentsJSON []byte

type incident struct {
	Org  alert.Text `json:"org"`
	When string     `json:"when"` // "2024-10", as published
	Fact alert.Text `json:"fact"`
}

// incidents maps an id ("2024-590") to the incident.
var incidents = func() map[string]incident {
	var m map[string]incident
	if err := json.Unmarshal(incidentsJSON, &m); err != nil {
		panic("console: incidents.json: " + err.Error())
	}
	return m
}()

// incidentView is an incident that an alert resembles. One that the table does
// not know is shown by its id alone.
type incidentView struct {
	ID, Org, When, Fact string
}

func (p *printer) incident(id string) incidentView {
	v := incidentView{ID: p.plain(id, 40)}
	if inc, ok := incidents[strings.TrimPrefix(id, "#")]; ok {
		v.Org, v.When, v.Fact = inc.Org.In(p.lang), inc.When, inc.Fact.In(p.lang)
	}
	return v
}
