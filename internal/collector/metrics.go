package collector

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sekisho/internal/alert"
	"sekisho/internal/endpoint"
	"sekisho/internal/wire"
)

// metrics counts what agents ask. Labels take values of our own only, never of
// an agent's.
type metrics struct {
	requests *prometheus.CounterVec   // by path and code ("": answered)
	stored   *prometheus.CounterVec   // by kind
	seconds  *prometheus.HistogramVec // by path
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sekisho_agent_requests_total", Help: "Requests of agents by path and by the code they were refused with (empty: answered)."}, []string{"path", "code"}),
		stored: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sekisho_rows_total", Help: "Rows acknowledged, repeats included, by kind."}, []string{"kind"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sekisho_agent_request_seconds", Help: "Time to answer a request of an agent, commit included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}, []string{"path"}),
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.stored, m.seconds)
	}
	return m
}

func (m *metrics) done(path, code string, d time.Duration) {
	switch path {
	case wire.PathEnroll, wire.PathRenew, wire.PathBatches:
	default:
		path = "other"
	}
	m.requests.WithLabelValues(path, code).Inc()
	m.seconds.WithLabelValues(path).Observe(d.Seconds())
}

func (m *metrics) rows(alerts, activity int) {
	m.stored.WithLabelValues("alert").Add(float64(alerts))
	m.stored.WithLabelValues("activity").Add(float64(activity))
}

// Facts are what the database can tell to Prometheus.
type Facts interface {
	Endpoints(ctx context.Context) ([]endpoint.Record, error)
	AlertCounts(ctx context.Context) (alert.Counts, error)
	Size() int64
}

// factCollector asks the database when it is scraped.
type factCollector struct {
	facts                       Facts
	endpoints, alerts, size, ok *prometheus.Desc
}

// NewFactCollector gives Prometheus the endpoints by health, the open alerts by
// level and the size of the database.
func NewFactCollector(f Facts) prometheus.Collector {
	return &factCollector{f,
		prometheus.NewDesc("sekisho_endpoints", "Endpoints by health.", []string{"health"}, nil),
		prometheus.NewDesc("sekisho_alerts_open", "Alerts that are not closed, by level, without tests.", []string{"level"}, nil),
		prometheus.NewDesc("sekisho_database_bytes", "Size of the database on disk.", nil, nil),
		prometheus.NewDesc("sekisho_database_up", "Whether the database could be read for this scrape.", nil, nil),
	}
}

func (c *factCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.endpoints
	ch <- c.alerts
	ch <- c.size
	ch <- c.ok
}

func (c *factCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(c.size, float64(c.facts.Size()))
	up := 1.0
	if eps, err := c.facts.Endpoints(ctx); err == nil {
		n, now := map[endpoint.Health]int{}, time.Now()
		for i := range eps {
			n[eps[i].Health(now)]++
		}
		for _, h := range []endpoint.Health{endpoint.Healthy, endpoint.Degraded, endpoint.Late, endpoint.Silent, endpoint.Revoked} {
			gauge(c.endpoints, float64(n[h]), string(h))
		}
	} else {
		up = 0
	}
	if counts, err := c.facts.AlertCounts(ctx); err == nil {
		for i, name := range alert.LevelNames {
			gauge(c.alerts, float64(counts.Open[alert.Level(i)]), name)
		}
	} else {
		up = 0
	}
	gauge(c.ok, up)
}
