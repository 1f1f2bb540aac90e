"""What people read: the page with its sections, sentences and tables, the simulator's page, and `reproduce`."""

from cotinterp.figures.attention import AttentionView as AttentionView
from cotinterp.report.depth import depth_report as depth_report
from cotinterp.report.findings import Finding as Finding
from cotinterp.report.findings import findings as findings
from cotinterp.report.html import heads_table_html as heads_table_html
from cotinterp.report.inputs import Manifest as Manifest
from cotinterp.report.inputs import ReportInputs as ReportInputs
from cotinterp.report.inputs import collect_manifest as collect_manifest
from cotinterp.report.inputs import read_inputs as read_inputs
from cotinterp.report.inputs import read_manifest as read_manifest
from cotinterp.report.inputs import write_manifest as write_manifest
from cotinterp.report.page import build_report as build_report
from cotinterp.report.page import rebuild_report as rebuild_report
from cotinterp.report.page import write_report as write_report
from cotinterp.report.schema import SCHEMAS as SCHEMAS
from cotinterp.report.schema import read_tables as read_tables
from cotinterp.report.simulator import build_simulator as build_simulator
