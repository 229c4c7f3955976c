package endpoint

import "testing"

func TestWhatAChangeOfStateIs(t *testing.T) {
	g := NewGauge("usb")
	for i, step := range []struct {
		state SensorState
		want  Turn
	}{
		{SensorDegraded, Worse}, {SensorDegraded, Steady}, {SensorOK, Better}, {SensorOK, Steady}, {SensorDegraded, Worse}, {SensorDown, Steady},
		{SensorDegraded, Worse}, {SensorLimited, Better}, {SensorDown, Steady}, {SensorOK, Steady},
	} {
		before := g.Status()
		got := g.Set(step.state, "m", "r")
		if got != step.want {
			t.Errorf("step %d, from %s to %s: turn %d, want %d", i, before.State, step.state, got, step.want)
		}
		if after := g.Status(); after.State != step.state || after.Name != "usb" || before.State == step.state && after.Since != before.Since {
			t.Errorf("step %d: got %+v after %+v", i, after, before)
		}
	}
	g.Told()
	g.Lose(3)
	if s := g.Status(); s.Events != 1 || s.Lost != 3 {
		t.Errorf("counts %d events, %d lost, want 1 and 3", s.Events, s.Lost)
	}
}
