"""The tables of the invented hospital: file names and columns as MIMIC-IV publishes them."""

CHEXPERT = (
    "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,"
    "Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)
NOTE = "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text"

COLUMNS: dict[str, str] = {
    "hosp/patients": "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
    "hosp/admissions": (
        "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admit_provider_id,"
        "admission_location,discharge_location,insurance,language,marital_status,race,"
        "edregtime,edouttime,hospital_expire_flag"
    ),
    "hosp/labevents": (
        "labevent_id,subject_id,hadm_id,specimen_id,itemid,order_provider_id,charttime,storetime,"
        "value,valuenum,valueuom,ref_range_lower,ref_range_upper,flag,priority,comments"
    ),
    "hosp/d_labitems": "itemid,label,fluid,category",
    "hosp/diagnoses_icd": "subject_id,hadm_id,seq_num,icd_code,icd_version",
    "hosp/drgcodes": (
        "subject_id,hadm_id,drg_type,drg_code,description,drg_severity,drg_mortality"
    ),
    "icu/icustays": ("subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los"),
    "icu/chartevents": (
        "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valuenum,"
        "valueuom,warning"
    ),
    "icu/outputevents": (
        "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valueuom"
    ),
    "icu/d_items": (
        "itemid,label,abbreviation,linksto,category,unitname,param_type,"
        "lownormalvalue,highnormalvalue"
    ),
    "ed/edstays": (
        "subject_id,hadm_id,stay_id,intime,outtime,gender,race,arrival_transport,disposition"
    ),
    "ed/triage": (
        "subject_id,stay_id,temperature,heartrate,resprate,o2sat,sbp,dbp,pain,acuity,chiefcomplaint"
    ),
    "cxr/mimic-cxr-2.0.0-metadata": (
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,"
        "StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
        "PatientOrientationCodeSequence_CodeMeaning"
    ),
    "cxr/mimic-cxr-2.0.0-chexpert": f"subject_id,study_id,{CHEXPERT}",
    "note/discharge": NOTE,
    "note/radiology": NOTE,
}

# Charted items: label, unit, category. Text items have no unit.
CHART_ITEMS: dict[int, tuple[str, str, str]] = {
    220045: ("Heart Rate", "bpm", "Routine Vital Signs"),
    220050: ("Arterial Blood Pressure systolic", "mmHg", "Routine Vital Signs"),
    220051: ("Arterial Blood Pressure diastolic", "mmHg", "Routine Vital Signs"),
    220052: ("Arterial Blood Pressure mean", "mmHg", "Routine Vital Signs"),
    220179: ("Non Invasive Blood Pressure systolic", "mmHg", "Routine Vital Signs"),
    220180: ("Non Invasive Blood Pressure diastolic", "mmHg", "Routine Vital Signs"),
    220181: ("Non Invasive Blood Pressure mean", "mmHg", "Routine Vital Signs"),
    220210: ("Respiratory Rate", "insp/min", "Respiratory"),
    220277: ("O2 saturation pulseoxymetry", "%", "Respiratory"),
    223761: ("Temperature Fahrenheit", "°F", "Routine Vital Signs"),
    223762: ("Temperature Celsius", "°C", "Routine Vital Signs"),
    220739: ("GCS - Eye Opening", "", "Neurological"),
    223900: ("GCS - Verbal Response", "", "Neurological"),
    223901: ("GCS - Motor Response", "", "Neurological"),
    223835: ("Inspired O2 Fraction", "", "Respiratory"),
    225664: ("Glucose finger stick (range 70-100)", "mg/dL", "Labs"),
    223951: ("Capillary Refill R", "", "Cardiovascular (Pulses)"),
    226707: ("Height", "Inch", "General"),
    226730: ("Height (cm)", "cm", "General"),
    226512: ("Admission Weight (Kg)", "kg", "General"),
    226531: ("Admission Weight (lbs.)", "", "General"),
    224639: ("Daily Weight", "kg", "General"),
    220046: ("Heart rate Alarm - High", "bpm", "Alarms"),
    220048: ("Heart Rhythm", "", "Routine Vital Signs"),
}
LAB_ITEMS: dict[int, tuple[str, str, str]] = {
    50809: ("Glucose", "Blood", "Blood Gas"),
    50817: ("Oxygen Saturation", "Blood", "Blood Gas"),
    50820: ("pH", "Blood", "Blood Gas"),
    50931: ("Glucose", "Blood", "Chemistry"),
    51478: ("Glucose", "Urine", "Hematology"),
}
URINE = 226559  # of outputevents
TEXT_ITEMS = frozenset({220739, 223900, 223901, 223951, 220048})
